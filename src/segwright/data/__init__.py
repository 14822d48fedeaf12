"""Between files and crops: what a data set looks like, which part of it is for what, decoded samples, which crops are drawn."""
