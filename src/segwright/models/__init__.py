"""One file per architecture. Each offers Config, PRESETS and, where the authors published weights, rename."""
