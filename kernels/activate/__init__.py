"""What stands behind a linear layer whose own op does not do it."""
