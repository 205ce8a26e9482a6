"""Pictures made larger by a network, tile by tile."""
