"""Commands that measure what takes too long for a test, and what they share with tests."""
