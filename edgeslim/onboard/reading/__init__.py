"""Reading: rasters of every make as rectangles of values and validity."""
