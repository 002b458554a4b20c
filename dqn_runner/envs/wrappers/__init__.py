"""Environment wrappers. They import gymnasium, so import them inside functions."""
