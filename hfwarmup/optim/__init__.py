"""The schedule at work on a torch optimizer."""
