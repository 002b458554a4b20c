"""Environments: parts that make them, and how they are stepped."""
