"""Modules of torch, imported only when a network is built."""
