"""Environments: the options of `env=`, and the workers that step them."""
