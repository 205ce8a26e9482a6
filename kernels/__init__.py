"""GPU kernels for the `cuda` target: the lowest floor, which imports nothing of the others. None is here yet."""
