"""Typed settings behind flags, YAML files and Python."""
