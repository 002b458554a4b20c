"""Trained agents without their environment and their training: loading, acting, exporting."""
