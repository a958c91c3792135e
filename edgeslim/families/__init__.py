"""Families: whose checkpoint it is and what it is read for, told from names and shapes. No torch."""
