"""Linear layers on 8-bit activations and 4-bit weights: the memory of the one, the speed of the other."""
