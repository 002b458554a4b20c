"""Vocabulary of the package: types, exceptions, the registry of parts. Imports nothing else of it."""
