"""Timing: an artifact's network called again and again, in a process of its own, and what that showed."""
