"""Builds the parts of a trainer from an agent, an environment part and a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any, cast

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.agent.config import DQNConfig
from dqn_runner.agent.own_parts import building_parts, is_ours
from dqn_runner.checkpointing.recovery import find_checkpoint, has_checkpoints, load_newest_valid
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.records import RunInfo
from dqn_runner.core.registry import import_path, to_plain
from dqn_runner.core.rng import eval_seeds, seed_for, stream
from dqn_runner.core.settings import fit_to_budget
from dqn_runner.core.types import EnvSpec
from dqn_runner.envs.base import Env, EnvPart, env_name, spec_of
from dqn_runner.envs.checked_env import make_env
from dqn_runner.envs.episode_metrics import info_metrics_of
from dqn_runner.envs.make_workers import make_worker, worker_factory
from dqn_runner.envs.user_env import describe
from dqn_runner.envs.vector_env import VectorEnv
from dqn_runner.envs.wrapping import STATISTICS, stateful_wrappers
from dqn_runner.io.json_io import as_json
from dqn_runner.loggers.base import LoggerPart
from dqn_runner.loggers.logger_group import default_loggers
from dqn_runner.loggers.wandb import Wandb
from dqn_runner.replay.buffer import Replay
from dqn_runner.replay.demonstrations import ReplayWithDemonstrations
from dqn_runner.run.compatibility import SESSION_KEYS, agent_of
from dqn_runner.run.directory import RunDirectory
from dqn_runner.training.checks import check
from dqn_runner.training.collector import Collector
from dqn_runner.training.config import TrainingConfig
from dqn_runner.training.evaluator import Evaluator
from dqn_runner.training.metrics import METRIC_KEYS
from dqn_runner.training.own_replay import OwnReplay
from dqn_runner.training.resources import check_disk, format_bytes
from dqn_runner.training.stopping import Stopping
from dqn_runner.training.video import VideoRecorder
from dqn_runner.training.watchdog import Watchdog

STOPPING, PRUNER, VIDEOS = "stopping", "pruner", "videos"
"""Names of the trainer's own callbacks."""


def check_types(agent: DQNAgent, config: TrainingConfig, output_dir: str | Path) -> None:
    """Raise UserError if a script gave something else."""
    if not isinstance(agent, DQNAgent):  # pyright: ignore[reportUnnecessaryIsInstance]
        hint = "; use DQNAgent(config)" if isinstance(agent, DQNConfig) else ""
        raise UserError(f"Trainer takes a DQNAgent, not a {type(agent).__name__}{hint}")
    if not is_dataclass(replay := agent.config.replay):
        raise UserError(
            f"agent.replay={import_path(type(cast('object', replay)))} must be a dataclass, of which the "
            "program makes copies with another capacity; put @dataclass before the class"
        )
    if not isinstance(config, TrainingConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
        hint = "; use TrainingConfig(**settings)" if isinstance(config, Mapping) else ""
        raise UserError(f"Trainer takes a TrainingConfig, not a {type(config).__name__}{hint}")
    if output_dir == "":
        raise UserError("output_dir is empty; name the directory of the run")


def fitted_config(config: DQNConfig, max_steps: int | None, output_dir: Path) -> DQNConfig:
    """The settings with numbers in the place of those that follow the budget.

    A run that `output_dir` already holds keeps the numbers of its first budget.
    """
    fitted = fit_to_budget(config, max_steps)
    if fitted is config or not has_checkpoints(output_dir):
        return fitted
    found: list[Any] = []
    with suppress(UserError):  # what is wrong is reported when the run is resumed
        load_newest_valid(find_checkpoint(output_dir), found.append, lambda _: None)
    return fit_to_budget(config, max_steps, agent_of(found[-1]["source"])) if found else fitted


def check_settings(
    agent: DQNAgent, config: TrainingConfig, env: EnvSpec, output_dir: Path, demonstrations: int = 0
) -> None:
    """Raise UserError if settings do not fit each other or `env`, or the run does not fit the machine.

    `demonstrations` is the number of transitions that the replay keeps beside its own; they are in memory.
    """
    check(agent.config, agent.spec, config, env)
    check_disk(output_dir, agent.config, config, env, agent.num_bytes(), demonstrations)


def make_collector(
    agent: DQNAgent, env: EnvPart, config: TrainingConfig, allow_inexact_resume: bool
) -> Collector:
    """The collector and its training environments, with separate reset seeds for each environment."""
    seed = agent.config.seed
    envs = VectorEnv(
        [make_worker(env, seed, index, config.env_timeout) for index in range(env.num_envs)],
        lambda index, episode: seed_for(seed, "env", index, episode),
        config.max_steps_per_episode,
        make_replacement=worker_factory(env, seed, config.env_timeout) if config.retry_env else None,
        allow_inexact_resume=allow_inexact_resume,
    )
    return Collector(envs, seed, env.learning_reward)


def make_evaluator(env: EnvPart, config: TrainingConfig, spec: EnvSpec) -> Evaluator:
    """The evaluation environment; its episodes have the same seeds in every run.

    Raises UserError if its spaces are not those of the training environment, which `spec` describes.
    """
    seeds = eval_seeds("eval")
    made = make_env(env, seeds(-1), training=False)
    if (found := spec_of(made)) != spec:
        raise UserError(
            f"the evaluation environment has observations {found.obs_shape} {found.obs_dtype} and "
            f"{found.num_actions} actions, the training environment {spec.obs_shape} {spec.obs_dtype} and "
            f"{spec.num_actions}; wrappers and action masks must be the same too"
        )
    return Evaluator(made, seeds, config.max_steps_per_episode, info_metrics_of(env))


def make_first_watchdog(config: TrainingConfig) -> Watchdog:
    """The watchdog while the environments are made and reset for the first time."""
    return Watchdog(config.env_timeout, "nothing was written; the same command starts again")


def make_watchdog(directory: RunDirectory, config: TrainingConfig) -> Watchdog:
    """The watchdog of a run that is training."""
    advice = "the same command resumes the run from its last checkpoint"
    stack = f"(the log of {directory.path} has the stack)"
    return Watchdog(config.env_timeout, f"{advice} {stack}", directory.end_session)


def make_replay(agent: DQNConfig, spec: EnvSpec, num_envs: int) -> Replay:
    """An empty replay buffer for transitions of `num_envs` environments of shapes `spec`."""

    def build(part: Any, num_envs: int, name: str, *frames: int) -> Replay:
        made = part.build(spec, num_envs, agent.gamma, agent.n_step, stream(agent.seed, name), *frames)
        return made if is_ours(part) else OwnReplay(part, made, part.capacity, *(frames or (0,)))

    def make_demonstrations(capacity: int, num_frames: int) -> Replay:
        frames = (num_frames,) if spec.frame_stack > 1 else ()
        return build(replace(agent.replay, capacity=capacity), 1, "demonstrations", *frames)

    try:
        with building_parts(agent.seed):
            own = build(agent.replay, num_envs, "replay")
        share = getattr(agent.replay, "demonstrations", 0.0)  # a replay of the user's may have none
        return ReplayWithDemonstrations(own, make_demonstrations, share) if share else own
    except MemoryError as error:
        size = format_bytes(agent.replay.num_bytes(spec))
        raise UserError(
            f"agent.replay.capacity={agent.replay.capacity} needs {size} of memory, which this machine does "
            "not have; choose a smaller capacity"
        ) from error


def make_loggers(given: Mapping[str, LoggerPart] | None, config: TrainingConfig) -> dict[str, LoggerPart]:
    """The loggers of a run by name, with Weights & Biases if the trainer is set to use it.

    Raises UserError for something else.
    """
    if not isinstance(given, Mapping | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UserError(
            f"loggers must be a dictionary, such as {{'csv': Csv()}}, not a {type(given).__name__}"
        )
    if wrong := [name for name, part in (given or {}).items() if not callable(getattr(part, "open", None))]:
        raise UserError(f"loggers[{wrong[0]!r}] is not a logger: it has no method open(run_dir, info, state)")
    loggers = default_loggers() if given is None else dict(given)
    if config.use_wandb and "wandb" not in loggers:
        loggers["wandb"] = Wandb()
    return loggers


def make_directory(
    path: Path,
    loggers: Mapping[str, LoggerPart] | None,
    agent: DQNAgent,
    config: TrainingConfig,
    part: EnvPart,
    source: Mapping[str, Any] | None,
    env: Env,
) -> RunDirectory:
    """The directory of a run in `env`, an environment of `part`.

    Its checkpoints store `source`: what the program composed, or, by default, the settings of a script. The
    program records the sessions of its runs itself.
    """
    settings, recorded = describe_source(agent, config, part), None
    if source is None or "config" not in source:
        made = settings["env"] or {"id": env_name(env)}
        recorded = as_json({**settings, "seed": agent.config.seed, "env": made})
    directory = RunDirectory(
        path, make_loggers(loggers, config), config.keep_last, source or settings, recorded
    )
    directory.notices += stateful_wrapper_notices(env)
    return directory


def all_callbacks(
    stopping: Stopping, pruner: Any, videos: VideoRecorder, own: Mapping[str, Any]
) -> dict[str, Any]:
    """The callbacks of a run in their order: those of the trainer first."""
    first: dict[str, Any] = {STOPPING: stopping}
    if pruner is not None:
        first[PRUNER] = pruner
    if videos.every is not None:
        first[VIDEOS] = videos
    if taken := sorted(first.keys() & own.keys()):
        raise UserError(f"callbacks.{taken[0]} is the name of a callback of the program; choose another name")
    return {**first, **own}


def describe_source(agent: DQNAgent, config: TrainingConfig, env: EnvPart) -> dict[str, Any]:
    """What the checkpoints of a script store so that the program can evaluate and resume its run."""
    return {"agent": to_plain(agent.config), "trainer": to_plain(config), "env": describe(env)}


def trained_agent_notices(agent: DQNAgent) -> list[str]:
    """A warning about an agent that a new run does not begin with the parameters of its seed."""
    if not agent.learner.updates:
        return []
    return [
        "the agent was trained before this run, which begins with its parameters instead of those of its "
        "seed; make a new DQNAgent for a run of its own"
    ]


def stateful_wrapper_notices(env: Env) -> list[str]:
    """One line if wrappers of `env` have statistics of the whole run; empty otherwise."""
    names = ", ".join(stateful_wrappers(env))
    return [f"{names}: {STATISTICS}"] if names else []


def run_info(directory: RunDirectory, config: TrainingConfig, group: str | None) -> RunInfo:
    """Facts about the run, passed to its loggers when they are opened."""
    return RunInfo(
        name=directory.path.resolve().name,
        config={key: value for key, value in directory.config.items() if key not in SESSION_KEYS},
        unit=config.frequency_unit.value,
        total=config.total,
        metric_keys=METRIC_KEYS,
        group=group,
    )
