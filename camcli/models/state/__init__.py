"""A model in use: left as it was found, one call at a time, known again by its weights."""
