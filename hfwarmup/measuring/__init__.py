"""What says whether the warmup is long enough: one measurement a file, pure functions."""
