"""Watching: scenes as they arrive, one at a time, each in a process of its own."""
