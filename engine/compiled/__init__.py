"""What a TensorRT for RTX engine's compiled program says of itself, read without a GPU and without the library."""
