"""How fast the GPU kernels are, beside their peers: `python -m benchmarks.kernels`."""
