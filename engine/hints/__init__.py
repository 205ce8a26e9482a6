"""Pictures that steer: whatever a caller gives → numbers, and edges found in them."""
