"""Results of a sweep: ranking, files and table, the best configuration."""
