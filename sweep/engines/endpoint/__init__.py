"""A server that runs already, and that nobody here has started."""
