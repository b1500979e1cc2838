"""Videos, animations and cameras, read frame by frame and written."""
