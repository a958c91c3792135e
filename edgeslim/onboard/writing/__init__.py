"""Writing: finished rows and cells as maps, polygons, summaries and pictures."""
