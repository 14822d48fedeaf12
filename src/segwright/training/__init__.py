"""The training loop: batches, what learns, what is kept of it, and what a run needs to go on."""
