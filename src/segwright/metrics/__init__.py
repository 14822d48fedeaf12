"""One file per metric. Each counts a prediction against a truth; counts add up; scores come from the sum."""
