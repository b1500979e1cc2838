"""What comes in and goes out: sources, pictures, their geometry, files."""
