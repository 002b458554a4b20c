"""Wrappers around environments. They subclass gymnasium, so import them inside functions."""
