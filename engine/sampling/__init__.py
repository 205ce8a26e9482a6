"""Noise levels, samplers and the denoising loop."""
