"""Engines for TensorRT, built on the GPU that they are for."""
