"""An engine folder appears whole or not at all, and a killed build goes on."""
