"""Training: encoders with labels and without, and the one that ships."""
