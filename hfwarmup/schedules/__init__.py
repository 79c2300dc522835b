"""What the learning rate is at update t. Standard library only."""
