"""What is known of a model's inside, measured where it can be."""
