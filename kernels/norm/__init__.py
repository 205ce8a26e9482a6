"""Normalizations that quantize as they write."""
