"""One run by several processes: who has which sources, and Ray."""
