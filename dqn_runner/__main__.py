"""`python -m dqn_runner`, or `python PATH/dqn_runner/__main__.py` from a checkout that is not installed."""

import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__ and not sys.flags.safe_path:
        # Python put the directory of this file first on the path. There, modules of the package (io, config)
        # would be importable as top-level modules and shadow those of the same name.
        sys.path[0] = str(Path(__file__).resolve().parents[1])

    from dqn_runner.cli.main import main

    main()
