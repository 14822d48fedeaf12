"""From a data set and a budget to a Plan, each choice with its reason."""
