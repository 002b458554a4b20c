"""The configuration of the program without overrides, to compare stored ones with."""

from __future__ import annotations

import functools
from typing import Any

from omegaconf import OmegaConf

from dqn_runner.config.hydra_internals import compose_command, parse_arguments
from dqn_runner.config.schema import CONF, DEFAULT_CONFIG, fit_defaults, to_plain_config
from dqn_runner.config.trust import without_hydra


@functools.cache
def default_config(max_steps: int | None) -> dict[str, Any]:
    """The plain default configuration; not to be modified.

    Settings that follow the budget have their values of a run of at most `max_steps` env steps.
    """
    cfg = without_hydra(compose_command(parse_arguments([]), CONF, DEFAULT_CONFIG))
    budget = cfg.trainer.max_steps
    OmegaConf.update(cfg, "trainer.max_steps", max_steps)
    fit_defaults(cfg)
    OmegaConf.update(cfg, "trainer.max_steps", budget)
    return to_plain_config(cfg)
