"""Every agent is swept on vectors and on images, also those of a user, and evaluates and resumes on one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import BUDGET, Outcome
from tests.support.probes import agent_options, short_schedule

IMAGES = '''
import gymnasium
import numpy as np


class Catch(gymnasium.Env):
    """A ball falls down a 7x7 screen; a paddle of one pixel must catch it. Observations are uint8 images."""

    observation_space = gymnasium.spaces.Box(0, 255, (7, 7, 2), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.row, self.ball, self.paddle = 0, int(self.np_random.integers(7)), 3
        return self._screen(), {}

    def step(self, action):
        self.row += 1
        self.paddle = min(6, max(0, self.paddle + int(action) - 1))
        landed = self.row == 6
        return self._screen(), float(landed and self.ball == self.paddle), landed, False, {}

    def _screen(self):
        screen = np.zeros((7, 7, 2), np.uint8)
        screen[self.row, self.ball, 0] = screen[6, self.paddle, 1] = 255
        return screen
'''
ENVS = {
    "cartpole": ("env=cartpole",),
    "lunarlander": ("env=lunarlander",),
    "breakout": ("env=minatar",),
    "images of a user": ("env=gym", "env.id=my_games.Catch"),
}
SETTINGS = (
    *BUDGET[1:-1],
    "trainer.max_steps_per_episode=100",
    "agent.batch_size=16",
    "trainer.target_return=null",
    "logging=[jsonl]",
)


@pytest.mark.slow
@pytest.mark.nightly  # in CI, test_learning.py trains every agent, and test_exact.py resumes most of them
@pytest.mark.parametrize("env", ENVS)
def test_agents_train_evaluate_and_resume(env: str, program: Callable[..., Outcome], tmp_path: Path) -> None:
    """Each agent takes one environment with vectors and one with images; it evaluates and resumes in one."""
    (tmp_path / "my_games.py").write_text(IMAGES)
    number = list(ENVS).index(env)
    chosen = agent_options()[number % 2 :: 2]
    turn = chosen[number // 2 :: 2]
    scheduled = [agent for agent in chosen if short_schedule(agent, 200)]
    others = [agent for agent in chosen if not short_schedule(agent, 200)]
    for agents in filter(None, (scheduled, others)):
        swept = (f"agent={','.join(agents)}", *short_schedule(agents[0], 200), *ENVS[env], *SETTINGS)
        done = program("-m", *swept, "trainer.max_steps=400", f"hydra.sweep.dir={agents[0]}")
        assert done.status == 0, done.err
        for number, agent in enumerate(agents):
            run_dir = tmp_path / agents[0] / str(number)
            metrics = json.loads((run_dir / "metrics.json").read_text())
            assert (metrics["env_steps"], metrics["evaluations"]["step"]) == (400, [400]), agent
            assert all(loss is not None for loss in metrics["train"]["loss"][1:]), agent
            if agent in turn:
                check_evaluation_and_resume(run_dir, agent, program)


def check_evaluation_and_resume(run_dir: Path, agent: str, program: Callable[..., Outcome]) -> None:
    evaluation = ("mode=eval", f"checkpoint={run_dir}", "evaluator.episodes=1", "hydra.run.dir=test")
    done = program(*evaluation, "trust=true")
    assert done.status == 0, (agent, done.err)
    done = program(f"resume={run_dir}", "trust=true", "trainer.max_steps=500")
    assert done.status == 0, (agent, done.err)
    assert "trainer.max_steps: 400 -> 500" in done.out
    assert json.loads((run_dir / "metrics.json").read_text())["env_steps"] == 500, agent
