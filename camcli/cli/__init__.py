"""The command line: thin edges that parse, call the pipeline and print."""
