"""Engines for TensorRT for RTX."""
