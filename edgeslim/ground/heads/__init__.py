"""Heads: labelled tiles -> a classifier that flies, and what it knows that it does not know."""
