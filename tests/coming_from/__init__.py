"""The pages in docs/coming-from: complete tables, names that exist, and examples that agree on both sides."""
