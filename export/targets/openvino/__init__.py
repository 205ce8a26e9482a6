"""Engines whose U-Nets OpenVINO runs, on processors that multiply 8-bit numbers."""
