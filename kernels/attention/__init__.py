"""Attention for head dimension 64: 16-bit, and with 8-bit scores."""
