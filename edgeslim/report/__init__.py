"""Report: tables, plots and pages for people."""
