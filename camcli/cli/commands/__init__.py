"""The commands, one a file: each parses, calls the pipeline and prints."""
