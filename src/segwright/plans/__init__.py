"""Everything about one run as one frozen tree: what it holds, how it is written down, and how older ones are read."""
