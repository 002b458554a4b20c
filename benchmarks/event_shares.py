"""The share of a run that evaluation, checkpoints and logs take, with the settings of the program.

    python benchmarks/event_shares.py env=cartpole trainer.max_steps=60000

The arguments are overrides of the command line of dqn_runner. The run goes to a temporary directory. Times
are CPU times, which other processes affect less than wall times.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dqn_runner.config.build import build_trainer
from dqn_runner.training.trainer import Trainer

EVALUATION, SAVING, WRITING, LOGS = "evaluation", "checkpoints: stalls", "checkpoints: writing", "logs"
LOOP = "the event loop"


class Clock:
    """CPU seconds of the training thread, by kind of event."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def watch(self, owner: Any, method: str, kind: str) -> None:
        """Add the time of each call of a method to `kind`."""
        call: Callable[..., Any] = getattr(owner, method)

        def timed(*arguments: Any, **keywords: Any) -> Any:
            start = time.thread_time()
            try:
                return call(*arguments, **keywords)
            finally:
                self.seconds[kind] += time.thread_time() - start
                self.calls[kind] += 1

        setattr(owner, method, timed)


def shares(trainer: Trainer) -> list[str]:
    """Train, and return the rows of the table."""
    clock = Clock()
    clock.watch(trainer.evaluator, "run", EVALUATION)
    clock.watch(trainer._saver, "_write", SAVING)
    clock.watch(trainer.directory.loggers, "write", LOGS)
    clock.watch(trainer, "_event_loop", LOOP)
    process, thread = time.process_time(), time.thread_time()
    trainer.train()
    thread = time.thread_time() - thread
    clock.seconds[WRITING] = time.process_time() - process - thread
    clock.calls[WRITING] = clock.calls[SAVING]
    total = clock.seconds[LOOP] + clock.seconds[WRITING]
    return [
        f"{trainer.step} env steps, {trainer.episode} episodes, {total:.1f} s",
        *(
            f"{kind:22} {clock.seconds[kind] / total:6.1%} {clock.calls[kind]:8,} times"
            for kind in (EVALUATION, SAVING, WRITING, LOGS)
        ),
    ]


def main() -> None:
    import torch
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    from dqn_runner.config.schema import CONF

    torch.set_num_threads(1)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = instantiate(compose("config", overrides=sys.argv[1:]), _convert_="object")
    with tempfile.TemporaryDirectory() as directory:
        print("\n".join(shares(build_trainer(config, Path(directory) / "run", {}, None))))


if __name__ == "__main__":
    main()
