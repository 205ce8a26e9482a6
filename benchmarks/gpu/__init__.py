"""Whole networks on a GPU, ours beside their peers in one run: `python -m benchmarks.gpu`."""
