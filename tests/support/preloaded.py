"""Imports what a run needs, and composes a configuration, so that the forks of a process start fast."""

import gc

import Box2D  # noqa: F401
import gymnasium.envs.classic_control.cartpole  # noqa: F401
import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import minatar.gym  # noqa: F401
import torch.fx.experimental.symbolic_shapes  # noqa: F401, torch imports it with the first gradient
from hydra.core.plugins import Plugins

import dqn_runner.cli.evaluate
import dqn_runner.cli.main
import dqn_runner.cli.train
import dqn_runner.sweep.reporter
import dqn_runner.sweep.runner  # noqa: F401
import tests.support.crash  # noqa: F401
from tests.support.composition import compose_config

Plugins.instance()  # Hydra imports its plugins when it starts
compose_config("agent=dqn")  # its parser builds tables when it is first used
gc.freeze()  # collections in the forked processes would copy the memory of all these objects
