"""Storages of studies: a journal file or a database."""
