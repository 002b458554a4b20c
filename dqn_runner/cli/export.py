"""mode=export: write the agent of a checkpoint in formats that other programs read."""

from __future__ import annotations

from dqn_runner.cli.job import Job
from dqn_runner.core.exceptions import UserError
from dqn_runner.inference.export import export_agent
from dqn_runner.inference.load import load_agent


def export(job: Job) -> float:
    """Write the files to the directory of the job, and return the env steps of the checkpoint."""
    if job.stored is None:
        raise UserError("mode=export needs checkpoint=PATH, a checkpoint or a run directory")
    agent = load_agent(job.stored.path, trust=True)  # the command was checked when it was composed
    for path in export_agent(agent, job.run.export, job.run_dir):
        print(f"written and checked: {path}")
    return float(agent.step)
