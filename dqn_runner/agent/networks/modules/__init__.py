"""Torch modules. They subclass torch classes, so import them inside functions."""
