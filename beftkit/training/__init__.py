"""The training loop, its state, its log, and evaluation."""
