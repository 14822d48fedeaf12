"""Image in, Segmentation out: engines, predictors, files."""
