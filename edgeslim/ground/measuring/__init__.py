"""Measuring: what an encoder keeps, and what of it is redundant, on a person's own tiles."""
