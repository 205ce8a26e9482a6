"""Layers whose weights have 4 or 8 bits and whose activations stay 16-bit floats: memory is what they save."""
