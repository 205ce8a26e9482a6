"""Convolutions of 8-bit pictures with 8-bit weights."""
