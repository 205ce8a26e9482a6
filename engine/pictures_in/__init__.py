"""Pictures as input: what a caller may give, brought into one form."""
