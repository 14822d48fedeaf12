"""Results to numbers with confidence intervals, and to a page that people read."""
