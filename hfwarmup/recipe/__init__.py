"""What the recipes share: arguments, data, model, metrics, and how a run begins and ends."""
