"""Picture files and maps, read and written."""
