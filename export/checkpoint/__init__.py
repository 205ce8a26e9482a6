"""A checkpoint on disk → its settings, and its weights by name."""
