"""The sweeper `hydra/sweeper=optuna`."""
