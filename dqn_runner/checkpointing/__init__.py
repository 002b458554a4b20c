"""Checkpoints of a run: file format, writing, retention, and recovery from damaged files."""
