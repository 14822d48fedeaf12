"""What benchmarks/metrics.py compares, one file per group of metrics. Each offers `cases()`."""
