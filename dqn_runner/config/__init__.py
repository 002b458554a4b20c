"""The configuration tree: schema, overrides, resume, error messages, and the composition root."""
