"""Quantization to 8 bits: per token, per picture, and behind GEGLU."""
