"""Run directories made without training, and what a page contains."""

from __future__ import annotations

import copy
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from dqn_runner.config.defaults import default_config
from dqn_runner.io import json_io

HOSTILE = "</script><script>alert(1)</script><!-- \u2028 '\"><img src=x onerror=alert(2)>&amp;{{7*7}}"
"""A text that would run in a page that does not escape it."""


def store_run(
    directory: Path,
    means: list[float] = [10.0, 20.0],  # noqa: B006
    *,
    finished: str | None = "trainer.max_steps=2000 reached",
    seconds: float = 5.0,
    overrides: list[str] = [],  # noqa: B006
    **settings: Any,
) -> Path:
    """A run that was evaluated every 100 steps with these mean returns of 4 episodes.

    `settings` are changes of the default configuration, with `__` for a dot, as in `agent__gamma=0.9`.
    """
    directory.mkdir(parents=True)
    config = copy.deepcopy(default_config(None))
    for key, value in settings.items():
        *path, last = key.split("__")
        node = config
        for name in path:
            node = node[name]
        node[last] = value
    records: list[dict[str, Any]] = []
    for index, mean in enumerate(means, start=1):
        step = 100 * index
        episode = {"train/return": mean / 2, "train/length": 10.0}
        records.append({"kind": "episode", "step": step - 50, "episode": index, **episode})
        train = {
            "train/epsilon": 0.5,
            "train/loss": 1.0 / index,
            "train/q_mean": mean,
            "time/elapsed": seconds,
        }
        records.append({"kind": "train", "step": step, "episode": index, **train})
        spread = {"return_mean": mean, "return_std": 1.0, "return_min": mean - 2, "return_max": mean + 2}
        records.append(
            {"kind": "eval", "step": step, "episode": index} | {f"eval/{k}": v for k, v in spread.items()}
        )
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (directory / "metrics.jsonl").write_text(lines)
    steps = [100 * i for i in range(1, len(means) + 1)]
    returns = [[mean - 1, mean, mean, mean + 1] for mean in means]
    best = int(np.argmax(means)) if means else 0
    halves, numbers = [mean / 2 for mean in means], list(range(1, len(means) + 1))
    document = {
        "env_steps": 100 * len(means),
        "num_episodes": len(means),
        "best": {"return_mean": max(means, default=None), "step": 100 * (best + 1)},
        "last": {"return_mean": means[-1] if means else None, "step": 100 * len(means)},
        "finished": finished,
        "time": {"training_seconds": seconds, "eta_seconds": 0.0},
        "episodes": {"step": [step - 50 for step in steps], "return": halves, "length": [10.0] * len(means)},
        "train": {"step": steps, "episode": numbers, "loss": [1.0 / number for number in numbers]},
        "evaluations": {"step": steps, "episode": steps, "returns": returns, "return_mean": means},
    }
    json_io.write_json(directory / "metrics.json", document)
    session = {
        "started": "2026-01-01T00:00:00+00:00",
        "command": ["python", "-m", "dqn_runner", *overrides],
        "overrides": overrides,
        "changes": [],
        "packages": {"torch": "2.13.0"},
        "hardware": {"host": "here", "cores": 2},
    }
    json_io.write_json(directory / "run.json", {"config": config, "sessions": [session]})
    return directory


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tags_of(page: str) -> list[tuple[str, dict[str, str | None]]]:
    """Every start tag of a page with its attributes, as a browser finds them."""
    reader = _Reader()
    reader.feed(page)
    return reader.tags


def text_of(page: str) -> str:
    """What a reader sees of a page: no tags, scripts and styles, one space between words."""
    body = re.sub(r"<(script|style).*?</\1>|<!--.*?-->", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def charts_of(page: str) -> dict[str, dict[str, Any]]:
    """The data of the charts of a page, by their identifiers."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    return {chart["id"]: chart for chart in json.loads(match[1])["charts"]}
