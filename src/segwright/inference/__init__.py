"""Image in, Segmentation out: engines, tiling, flips, files."""
