"""Adapters: LoRAs as low-rank pairs beside the layers of an engine that knows nothing of them."""
