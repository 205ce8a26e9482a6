"""Attention of one head as wide as the channels: the VAE's."""
