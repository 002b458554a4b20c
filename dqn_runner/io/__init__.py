"""Durable files, locks, JSON documents and signals."""
