"""Loggers: consumers of the metrics and messages of a run."""
