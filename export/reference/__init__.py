"""The unquantized run that a build is calibrated by and held to."""
