"""Engines for ONNX Runtime on a GPU, and what every target of ONNX Runtime does alike."""
