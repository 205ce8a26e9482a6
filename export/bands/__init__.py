"""Lowered graphs, cut into segments that run over bands of rows."""
