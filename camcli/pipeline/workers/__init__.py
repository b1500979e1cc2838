"""Threads that work beside the model, and the memory that pictures in flight may take."""
