"""Sample in, Sample out. Image and truth move together, in 2D and in 3D."""
