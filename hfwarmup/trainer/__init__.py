"""A schedule of this package in any Trainer of transformers."""
