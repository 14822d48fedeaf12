"""The training loop, what it needs to resume, and its schedule."""
