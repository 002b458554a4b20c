"""The self-test: does the installed program work on this machine? `python -m dqn_runner.selftest`."""
