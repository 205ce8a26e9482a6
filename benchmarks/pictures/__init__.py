"""Whole pictures, stage by stage."""
