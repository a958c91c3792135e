"""Calibrating: a device card of this machine, from what its processor, memory and runtimes are measured to give."""
