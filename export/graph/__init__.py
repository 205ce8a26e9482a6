"""Modules → ONNX masters, and rewrites of them that every target shares."""
