"""Components that are run a band of rows at a time: their segments, what lies between them, and what they take."""
