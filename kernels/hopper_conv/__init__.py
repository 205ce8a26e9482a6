"""The 8-bit convolution for Hopper alone: a step of matrix instructions in flight while the next taps are gathered."""
