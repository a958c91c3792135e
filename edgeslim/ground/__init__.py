"""The ground: torch lives here and nowhere else."""
