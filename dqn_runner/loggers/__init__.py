"""Loggers: where the records and messages of a run go."""
