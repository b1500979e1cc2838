"""What somebody looks at after a run: a page of its heatmaps, and what they say of each class."""
