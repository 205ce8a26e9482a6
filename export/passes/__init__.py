"""Rewrites of the ONNX master, one a file. Each changes a graph in place and leaves what it does not know alone."""
