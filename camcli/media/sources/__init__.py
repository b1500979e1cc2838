"""What the user named -> the files behind it."""
