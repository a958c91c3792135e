"""Exporting: capture, convert, prove, pack."""
