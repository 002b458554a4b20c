"""mode=export: write the agent of a checkpoint in formats that other programs read."""

from __future__ import annotations

from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.cli.job import Job
from dqn_runner.core.exceptions import UserError
from dqn_runner.inference.export import export_agent
from dqn_runner.inference.load import restore_agent


def export(job: Job) -> float:
    """Write the files to the directory of the job, and return the env steps of the checkpoint."""
    if job.stored is None:
        raise UserError("mode=export needs checkpoint=PATH, a checkpoint or a run directory")
    path = job.stored.path
    agent = restore_agent(path, load_checkpoint(path), job.run.agent)
    for written in export_agent(agent, job.run.export, job.run_dir):
        print(f"written and checked: {written}")
    return float(agent.step)
