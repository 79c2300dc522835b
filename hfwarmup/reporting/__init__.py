"""What the user sees afterwards: pictures."""
