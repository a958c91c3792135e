"""Runtimes: one class a library that runs networks on board."""
