"""mode=publish: write a folder with an agent that a person can share. Nothing is uploaded."""

from __future__ import annotations

from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.checkpointing.names import CHECKPOINTS
from dqn_runner.cli.evaluate import scored_checkpoint
from dqn_runner.cli.job import Job
from dqn_runner.core.exceptions import UserError
from dqn_runner.inference.load import restore_agent
from dqn_runner.inference.publish import CURVES, publish_agent
from dqn_runner.run.compatibility import SESSION_KEYS

FOLDER = "published"


def publish(job: Job) -> float:
    """Evaluate the agent, write the folder, and return the mean return."""
    if job.stored is None:
        raise UserError("mode=publish needs checkpoint=PATH, a checkpoint or a run directory")
    path, target = job.stored.path, job.run_dir / FOLDER
    if target.exists():  # before anything is evaluated
        raise UserError(f"{target} already exists; nothing was changed. Choose another hydra.run.dir")
    with scored_checkpoint(job.run, path) as (_, evaluation, score):
        document = load_checkpoint(path)
        agent = restore_agent(path, document, job.run.agent)
        config = {key: value for key, value in job.source["config"].items() if key not in SESSION_KEYS}
        score = {**score, "checkpoint": path.name}  # without its path
        curves = path.parent.parent / CURVES if path.parent.name == CHECKPOINTS else None
        files = publish_agent(agent, document, config, score, curves, target)
        print(f"published in {target}: {', '.join(file.name for file in files)}")
        print("fill in the licence in README.md before you share the folder", flush=True)
    return evaluation.mean
