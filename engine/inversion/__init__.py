"""Textual inversion: words of a prompt that are vectors from files, for each text encoder its own."""
