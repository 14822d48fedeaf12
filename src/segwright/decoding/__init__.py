"""From a network's outputs to a Segmentation: windows, mirror images, upsampling to labels, and asking a network."""
