"""What is built beside an engine."""

TARGETS = ("cpu",)
"""Those whose engines have the graphs that take what is beside them."""
