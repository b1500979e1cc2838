"""Heat in colour, and laid on the picture."""
