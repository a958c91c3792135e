"""Slimming: a narrower encoder from a wider one, by every method."""
