"""The update, compiled ahead of time into a library that is kept on disk."""
