"""Types, exceptions, the state protocol and the registry of parts; imports nothing else of the package."""
