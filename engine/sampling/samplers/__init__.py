"""One sampler a file, and the table of them."""
