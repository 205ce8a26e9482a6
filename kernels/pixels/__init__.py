"""Pictures as callers have them, channels first, into the order of the kernels."""
