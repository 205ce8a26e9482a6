"""Which layers get which numbers, and how weights become them."""
