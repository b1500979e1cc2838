"""Everything that is known about models."""
