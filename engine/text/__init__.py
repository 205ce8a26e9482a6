"""Prompts → what the U-Nets see of them."""
