"""Checkpoints: files of every family -> the canonical encoder, and back."""
