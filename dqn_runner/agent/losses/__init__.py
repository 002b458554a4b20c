"""Losses and TD targets."""
