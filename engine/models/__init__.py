"""The torch modules that export traces."""
