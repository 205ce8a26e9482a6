"""An engine folder on disk: `engine.json`, its files and their hashes."""
