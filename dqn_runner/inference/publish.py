"""Writes a folder with an agent that a person can share: model card, weights, settings, scores, curves."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dqn_runner.checkpointing.format import encode, pack
from dqn_runner.checkpointing.names import BEST
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.state import State
from dqn_runner.inference.export import description, export_agent
from dqn_runner.inference.load import imports_of
from dqn_runner.inference.trained_agent import TrainedAgent
from dqn_runner.io import json_io
from dqn_runner.io.terminal import precise
from dqn_runner.run.provenance import env_of

CARD, CONFIG, SCORE, CURVES = "README.md", "config.json", "eval.json", "training_curves.png"
WEIGHTS = "agent.safetensors"


def publish_agent(
    agent: TrainedAgent,
    document: State,
    config: Mapping[str, Any],
    score: Mapping[str, Any],
    curves: Path | None,
    directory: Path,
) -> list[Path]:
    """Write the folder `directory`, complete or not at all; returns its files.

    `document` is the checkpoint of the agent, `config` the settings of its run, `score` the content of
    eval.json, and `curves` a picture that may not exist, or None. Raises UserError if the folder exists.
    """
    if directory.exists():
        raise UserError(f"{directory} already exists; nothing was changed. Choose another hydra.run.dir")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="publish-") as folder:
        unfinished = Path(folder) / "folder"
        export_agent(agent, ["safetensors"], unfinished)
        (unfinished / BEST).write_bytes(encode(_agent_alone(document)))
        json_io.write_json(unfinished / CONFIG, {"config": config, **description(agent)})
        json_io.write_json(unfinished / SCORE, score)
        if curves is not None and curves.is_file():
            shutil.copyfile(curves, unfinished / CURVES)
        card = model_card(agent, config, score, (unfinished / CURVES).exists())
        (unfinished / CARD).write_text(card, encoding="utf-8")
        unfinished.replace(directory)
    return sorted(directory.iterdir())


def _agent_alone(document: State) -> State:
    """A checkpoint from which the agent can be loaded: no replay, environments and paths of this machine."""
    state, source = document["state"], document["source"]
    kept: State = {
        "step": document["step"],
        "names": [],
        "source": {**source, **({"config_dir": None} if "config_dir" in source else {})},
        "state": {
            "step": document["step"],
            "agent": state["agent"],
            "spaces": state["spaces"],
            "collector": {"envs": {"obs": state["collector"]["envs"]["obs"]}},
            "progress": {"early_stopping": state["progress"]["early_stopping"]},
        },
    }
    return pack(kept, _no_replay)


def _no_replay(_: Any, where: str) -> State:
    raise TypeError(f"{where} is a replay")


def _observations(agent: TrainedAgent) -> str:
    """Dtype and shape, of Dict observations those of each entry."""
    if agent.layout is None:
        return f"{agent.obs_dtype} {list(agent.obs_shape)}"
    shapes, dtypes = agent.layout.entry_shapes, agent.layout.entry_dtypes
    return ", ".join(f"`{name}`: {dtypes[name]} {list(shape)}" for name, shape in shapes.items())


def model_card(
    agent: TrainedAgent, config: Mapping[str, Any], score: Mapping[str, Any], has_curves: bool
) -> str:
    """The model card as Markdown, with the metadata that hubs read."""
    about, env = agent.provenance, env_of(config) or "its environment"
    interval = ""
    if ends := score["return_ci95"]:
        interval = f", 95 % confidence interval [{precise(ends[0])}, {precise(ends[1])}]"
    trusting, note = "", ""
    if imports := imports_of(config["agent"]):
        trusting = ", trust=True"
        note = f"\n`trust=True` allows to import {', '.join(imports)}.\n"
    masked = ", action_mask=action_mask" if agent.has_action_mask else ""
    curves = f"![Training curves]({CURVES})\n\n" if has_curves else ""
    spread = f"{precise(score['return_std'])}, from {score['return_min']:g} to {score['return_max']:g}"
    own = "".join(f"| {name} | {value:.4g} |\n" for name, value in score["metrics"].items())
    return f"""---
library_name: dqn_runner
tags: [reinforcement-learning, dqn]
---

# DQN agent for {env}

| | |
|---|---|
| mean return | {precise(score["return_mean"])}{interval} |
| evaluated on | {score["episodes"]} greedy episodes with fixed seeds that did not select the checkpoint |
| standard deviation, range | {spread} |
{own}| trained for | {agent.step:,} env steps |
| observations | {_observations(agent)} |
| actions | {agent.num_actions} |

{curves}The confidence interval is of the mean return of this policy, not of other runs with other seeds.

## Use

With the Python package `dqn_runner` and this folder:

```python
from dqn_runner import load_agent

agent = load_agent("PATH_OF_THIS_FOLDER"{trusting})
action = agent.predict(observation{masked})  # as the environment of the run returns it
```
{note}
`{WEIGHTS}` has the weights alone. The names, the shapes and the preprocessing are in its metadata and in
`{CONFIG}`; `agent.to_module()` is a torch module that takes them.

## Settings

`{CONFIG}` has all of them.

```json
{json.dumps({key: config.get(key) for key in ("seed", "env", "agent")}, indent=2)}
```

## Provenance

| | |
|---|---|
| dqn_runner | {about["dqn_runner"]} |
| run, checkpoint | {about["run"]}, {about["checkpoint"]} |
| hash of the configuration | {about["config_hash"]} |
| best evaluation while training | {about["best_return_mean"]} at env step {about["best_step"]} |

## Licence

TO FILL IN: the licence under which you share this agent, for example `license: mit` above, and here its name.
"""
