"""Pictures as files, with their settings inside."""
