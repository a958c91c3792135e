"""Planning: which cut of an encoder flies on a device within a budget, and why no larger one. No torch."""
