"""Linear layers on 8-bit activations and 8-bit weights."""
