"""mode=record: write the transitions of greedy episodes, for agent.replay.preload of other runs."""

from __future__ import annotations

from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.cli.evaluate import closing, stored_agent
from dqn_runner.cli.job import Job
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.rng import eval_seeds
from dqn_runner.envs.base import env_name
from dqn_runner.envs.checked_env import make_env
from dqn_runner.inference.load import restore_agent
from dqn_runner.io.signals import exits_as_errors
from dqn_runner.io.terminal import precise
from dqn_runner.replay.offline.recorder import EpisodeRecorder
from dqn_runner.training.evaluator import Evaluator
from dqn_runner.training.watchdog import Watchdog

FILE = "transitions.npz"


def record(job: Job) -> float:
    """Play `evaluator.episodes` episodes, write them, and return their mean return.

    Their seeds differ from those of evaluations, which so measure episodes that nothing was learned from.
    """
    if job.stored is None:
        raise UserError("mode=record needs checkpoint=PATH, a checkpoint or a run directory")
    path, target, run = job.stored.path, job.run_dir / FILE, job.run
    if target.exists():  # before anything is played: a run may have begun with it
        raise UserError(f"{target} already exists; nothing was changed. Choose another hydra.run.dir")
    document = load_checkpoint(path)
    agent = stored_agent(run, path, document)
    seeds = eval_seeds("record", run.evaluator.seed)
    env = make_env(run.env, seeds(-1), training=False)
    evaluator = Evaluator(env, seeds, run.trainer.max_steps_per_episode)
    recorder = EpisodeRecorder(env)
    timeout = run.trainer.env_timeout
    with closing(evaluator, timeout, "the episodes are written"):
        with exits_as_errors(), Watchdog(timeout, "nothing was written; repeat the command to record again"):
            played = evaluator.run(agent.greedy, run.evaluator.episodes, witness=recorder)
        origin = restore_agent(path, document, run.agent).provenance
        recorder.write(target, {"env": env_name(env), **origin, "return_mean": played.mean})
        print(
            f"written: {target}: {sum(played.lengths)} transitions of {len(played.lengths)} greedy episodes, "
            f"mean return {precise(played.mean)}",
            flush=True,
        )
    return played.mean
