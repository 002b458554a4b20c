"""Recorded transitions: read from files, checked, and put into a replay before the first step of a run."""
