"""A component as a program for NVIDIA GPUs: calls of our kernels' ops as data, how they are laid out and launched."""
