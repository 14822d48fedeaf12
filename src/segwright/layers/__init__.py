"""Blocks that have a name in the literature and serve three networks or more."""
