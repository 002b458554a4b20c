"""`python -m dqn_runner.selftest [--full]`: a line for each check, and ALL TESTS PASSED! if all pass."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from dqn_runner.selftest.checks import FULL, QUICK, CheckFailedError, Program


def main() -> int:
    """Run the checks in a folder that is deleted if they pass; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m dqn_runner.selftest", description="Check that dqn_runner works on this machine."
    )
    parser.add_argument("--full", action="store_true", help="every agent and more kills: about five minutes")
    checks = [*QUICK, *(FULL if parser.parse_args().full else ())]
    folder = Path(tempfile.mkdtemp(prefix="dqn_runner_selftest_"))
    program, failed = Program(folder), 0
    for check in checks:
        name = (check.__doc__ or "").strip().rstrip(".")
        start = time.monotonic()
        try:
            detail = check(program)
        except Exception as error:  # an installation may be broken in any way
            failed += 1
            reason = error if isinstance(error, CheckFailedError) else f"{type(error).__name__}: {error}"
            print(f"FAILED  {name}\n        {reason}", flush=True)
        else:
            print(f"ok      {name}: {detail} ({time.monotonic() - start:.1f} s)", flush=True)
    if failed:
        print(f"{failed} of {len(checks)} checks failed; what they wrote is in {folder}")
        return 1
    shutil.rmtree(folder)
    print("ALL TESTS PASSED!")
    return 0


if __name__ == "__main__":
    sys.exit(main())
