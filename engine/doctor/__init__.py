"""What this machine is, and what can be built and run on it."""
