"""Tensors as they lie in safetensors files: where each is, and its numbers."""
