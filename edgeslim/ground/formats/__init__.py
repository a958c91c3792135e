"""One file a format, one function each."""
