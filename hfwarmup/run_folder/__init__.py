"""A run's folder, written and read. Standard library only."""
