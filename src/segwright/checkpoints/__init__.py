"""A network with its plan in one safetensors file, written whole or not at all."""
