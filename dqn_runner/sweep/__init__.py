"""Sweeps over settings with Optuna: a study, its trials, and the jobs that run them."""
