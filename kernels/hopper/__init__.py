"""8-bit matrix products for Hopper alone: its tensor cores work on one step while the next is prepared."""
