"""One file per data format. Each offers matches(path), read(path) -> Dataset, write(path, samples)."""
