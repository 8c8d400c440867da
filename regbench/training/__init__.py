"""Training: the loop, one step of it, and its state."""
