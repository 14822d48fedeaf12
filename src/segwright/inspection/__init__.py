"""The doctor of data sets: what is wrong with one, with the evidence and the remedy, before time is spent on training."""
