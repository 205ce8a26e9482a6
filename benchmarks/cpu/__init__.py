"""Networks and pictures on a processor, ours beside their peers in one run: `python -m benchmarks.cpu`."""
