"""The examples of the pages: both sides have the same settings, and reach the same score."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import yaml
from hydra.utils import instantiate

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.losses.q_learning import QLearning, TDError
from dqn_runner.agent.networks.architectures import Mlp
from dqn_runner.agent.schedules import Linear
from dqn_runner.config.build import build_agent
from dqn_runner.config.schema import fit_defaults
from dqn_runner.core.types import Array
from tests.coming_from.pages import write_files
from tests.support.composition import compose_config

RECIPES = {
    "CartPole-v1": "cartpole_zoo",
    "MountainCar-v0": "mountaincar_zoo",
    "LunarLander-v3": "lunarlander_zoo",
    "Acrobot-v1": "acrobot_zoo",
}


class Signals(gymnasium.Env[Any, Any]):
    """The largest of three numbers shows which action gives a reward; episodes have 10 steps."""

    observation_space = gymnasium.spaces.Box(-1, 2, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 10
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        reward = float(action == self.goal)
        return self._observe(), reward, False, self.left == 0, {}

    def _observe(self) -> Array:
        self.goal = int(self.np_random.integers(3))
        return (np.eye(3)[self.goal] + self.np_random.uniform(-0.3, 0.3, 3)).astype(np.float32)


def converted(*overrides: str, directory: Path | None = None) -> Any:
    """The typed configuration of a command, with the YAML files that a page has written."""
    search = [f"hydra.searchpath=[file://{directory / 'my_conf'}]"] if directory else []
    cfg = compose_config(*overrides, *search)
    fit_defaults(cfg)
    return instantiate(cfg, _convert_="object")


def sb3_model(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model of the page's script, with its evaluation, untrained."""
    from stable_baselines3 import DQN

    learned: dict[str, Any] = {}
    monkeypatch.setattr(DQN, "learn", lambda model, **given: learned.update(given, model=model))
    source = (directory / "with_sb3.py").read_text()
    exec(compile(source, "with_sb3.py", "exec"), {})
    return learned["model"], learned["total_timesteps"], learned["callback"]


@pytest.mark.slow  # stable-baselines3 takes seconds to import
def test_example_has_the_settings_of_stable_baselines3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files("stable-baselines3", tmp_path)
    model, steps, evaluation = sb3_model(tmp_path, monkeypatch)
    run = converted("experiment=from_sb3", "seed=0", directory=tmp_path)
    agent, ours = build_agent(run.agent, run.env), run.agent

    assert ours.learning_rate == model.lr_schedule(1.0)
    assert ours.replay.capacity == model.buffer_size
    assert ours.learning_starts == model.learning_starts + 1
    assert (ours.batch_size, ours.gamma, ours.tau) == (model.batch_size, model.gamma, model.tau)
    assert (ours.train_every, ours.gradient_steps) == (model.train_freq.frequency, model.gradient_steps)
    assert ours.target_update_every == model.target_update_interval
    assert (ours.max_grad_norm, ours.n_step, ours.seed) == (model.max_grad_norm, model.n_steps, model.seed)
    assert (run.trainer.max_steps, run.trainer.eval_frequency) == (steps, evaluation.eval_freq)
    assert run.trainer.eval_episodes == evaluation.n_eval_episodes
    adam = model.policy.optimizer.param_groups[0]
    assert (ours.optimizer.beta1, ours.optimizer.beta2) == adam["betas"]
    assert (ours.optimizer.eps, adam["weight_decay"]) == (adam["eps"], 0)
    for step in (1001, 3000, 8000, 8001, 49_999):
        assert agent.epsilon(step) == pytest.approx(model.exploration_schedule(1 - step / steps))
    shapes = [tuple(sorted(view.shape)) for view in agent.network.views(agent.learner.online)]
    assert shapes == [tuple(sorted(weight.shape)) for weight in model.q_net.parameters()]


def test_both_forms_of_the_example_have_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The YAML file and the Python script."""
    monkeypatch.chdir(tmp_path)
    write_files("stable-baselines3", tmp_path)
    trained: list[Trainer] = []
    monkeypatch.setattr(Trainer, "train", lambda trainer: trained.append(trainer) or trainer.stats)
    script: dict[str, Any] = {}
    source = (tmp_path / "with_dqn_runner.py").read_text().partition("print(")[0]
    exec(compile(source, "with_dqn_runner.py", "exec"), script)
    run = converted("experiment=from_sb3", "seed=0", directory=tmp_path)
    agent = build_agent(run.agent, run.env)
    assert agent.config == DQNAgent(script["config"]).config.__class__(
        **{**vars(script["config"]), "normalize_observations": False, "state_dim": agent.config.state_dim}
    )
    for name in ("max_steps", "max_steps_per_episode", "early_stopping", "eval_frequency", "frequency_unit"):
        assert getattr(run.trainer, name) == getattr(script["training"], name), name


@pytest.mark.parametrize("env", RECIPES)
def test_recipes_have_the_settings_of_the_zoo(env: str, zoo: Path) -> None:
    theirs = yaml.safe_load((zoo / "hyperparams" / "dqn.yml").read_text())[env]
    ours = converted(f"experiment={RECIPES[env]}")
    agent, steps = ours.agent, float(theirs.pop("n_timesteps"))
    network = eval(theirs.pop("policy_kwargs"))
    assert theirs.pop("policy") == "MlpPolicy"
    assert agent.network == Mlp(hidden=network.pop("net_arch"))
    assert not network
    assert (ours.env.id, ours.trainer.max_steps) == (env, steps)
    assert agent.gradient_steps in (theirs["gradient_steps"], theirs["train_freq"])
    assert (theirs.pop("gradient_steps") == -1) == (agent.gradient_steps == theirs["train_freq"])
    assert theirs == {
        "learning_rate": agent.learning_rate,
        "batch_size": agent.batch_size,
        "buffer_size": agent.replay.capacity,
        "learning_starts": agent.learning_starts,
        "gamma": agent.gamma,
        "target_update_interval": agent.target_update_every,
        "train_freq": agent.train_every,
        "exploration_fraction": agent.exploration.schedule.steps / steps,
        "exploration_final_eps": agent.exploration.schedule.end,
    }


def test_example_of_a_zoo_file_has_its_settings(tmp_path: Path) -> None:
    write_files("rl-zoo", tmp_path)
    run = converted("experiment=from_zoo", directory=tmp_path)
    assert run.agent.learning_rate_schedule(run.trainer.max_steps // 2) == 0.5
    assert run.agent.learning_rate_schedule(run.trainer.max_steps) == 0
    assert run.agent.exploration.schedule.steps == round(0.12 * run.trainer.max_steps)
    assert run.env.normalize_observations


def test_example_of_cleanrl_is_its_recipe(tmp_path: Path) -> None:
    write_files("cleanrl", tmp_path)
    ours = converted("experiment=from_cleanrl", directory=tmp_path)
    recipe = converted("experiment=cartpole_cleanrl")
    assert ours.agent == recipe.agent
    assert ours.trainer.max_steps == recipe.trainer.max_steps


def our_score(directory: Path, **settings: Any) -> float:
    """The best mean return of evaluations of an agent that learns `Signals` in 1,500 steps."""
    config = DQNConfig(state_dim=3, action_dim=3, network=Mlp(hidden=[32, 32]), **settings)
    training = TrainingConfig(
        frequency_unit="steps", max_steps=1_500, eval_frequency=500, log_frequency=500, early_stopping=False
    )
    return Trainer(DQNAgent(config), Signals(), training, output_dir=directory).train().best_mean


@pytest.mark.slow
@pytest.mark.usefixtures("no_curves")
def test_both_reach_the_same_score_as_stable_baselines3(tmp_path: Path) -> None:
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import EvalCallback
    from stable_baselines3.common.monitor import Monitor

    model = DQN(
        "MlpPolicy",
        Signals(),
        learning_rate=1e-3,
        buffer_size=1_000,
        learning_starts=99,
        batch_size=32,
        train_freq=2,
        target_update_interval=100,
        exploration_fraction=0.2,
        policy_kwargs={"net_arch": [32, 32]},
        seed=0,
        device="cpu",
    )
    evaluation = EvalCallback(Monitor(Signals()), n_eval_episodes=10, eval_freq=500, verbose=0)
    model.learn(1_500, callback=evaluation)
    ours = our_score(
        tmp_path,
        learning_starts=100,
        batch_size=32,
        train_every=2,
        target_update_every=100,
        exploration=EpsilonGreedy(schedule=Linear(steps=300)),
    )
    assert evaluation.best_mean_reward == ours == 10


@pytest.mark.slow
@pytest.mark.usefixtures("no_curves")
def test_both_reach_the_same_score_as_a_loop_like_that_of_cleanrl(tmp_path: Path) -> None:
    from tests.coming_from.cleanrl_loop import Arguments, train

    assert train(Signals(), Arguments()) == 10
    ours = our_score(
        tmp_path,
        learning_starts=100,
        batch_size=32,
        train_every=2,
        target_update_every=100,
        max_grad_norm=None,
        loss=QLearning(error=TDError.squared),
        exploration=EpsilonGreedy(schedule=Linear(steps=300)),
    )
    assert ours == 10


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:Evaluation environment is not wrapped")  # the example as users write it
def test_both_solve_cartpole_with_the_settings_of_the_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Minutes; the quicker siblings compare the settings, and the scores in a smaller task."""
    monkeypatch.chdir(tmp_path)
    write_files("stable-baselines3", tmp_path)
    scores: list[float] = []
    for script in ("with_sb3.py", "with_dqn_runner.py"):
        exec(compile((tmp_path / script).read_text(), script, "exec"), {})
        last = re.sub(r"[^\d.]", "", capsys.readouterr().out.splitlines()[-1])
        scores.append(float(last))
    assert min(scores) >= 475
