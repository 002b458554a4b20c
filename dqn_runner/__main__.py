"""`python -m dqn_runner`."""

from dqn_runner.cli.main import main

if __name__ == "__main__":
    main()
