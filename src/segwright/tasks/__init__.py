"""One file per meaning of a network's output: batch to loss, output to Segmentation."""
