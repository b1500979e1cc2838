"""The altered pictures whose scores metrics ask for: what is taken away, what stands there."""
