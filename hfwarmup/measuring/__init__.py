"""Measurements of a run, as pure functions: each has a case whose answer is known."""
