"""Names of classes: a model's own, and those in files as people have them."""
