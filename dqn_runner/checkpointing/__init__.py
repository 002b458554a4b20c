"""Checkpoint files: content, writing, retention and recovery."""
