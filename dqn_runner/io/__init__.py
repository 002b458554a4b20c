"""Durable file operations, locks, JSON files and signal handling."""
