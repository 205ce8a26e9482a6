"""Linears and convolutions on float16 operands, for layers that no 8-bit format serves."""
