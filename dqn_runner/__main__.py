"""`python -m dqn_runner`."""

from dqn_runner.app import main

if __name__ == "__main__":
    main()
