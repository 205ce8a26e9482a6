"""Engines for ONNX Runtime on a processor."""
