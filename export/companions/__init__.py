"""What is built beside an engine."""
