"""The sub-commands of `pocketxl` that need an engine folder only."""
