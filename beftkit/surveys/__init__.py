"""Surveys: what many checkpoints of one base did to its biases. A row each, whatever came of it."""
