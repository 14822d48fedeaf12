"""A task and a network of somebody else's, in a package outside segwright."""
