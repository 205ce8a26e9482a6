"""The `cuda` target: programs of our own kernels, compiled for every architecture without a GPU."""
