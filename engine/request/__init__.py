"""What a caller asks for, checked once."""
