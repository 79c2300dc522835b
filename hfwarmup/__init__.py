"""Learning-rate warmup for Hugging Face training, done right."""
