"""Whether the map lies on the object: metrics that need a box or a mask."""
