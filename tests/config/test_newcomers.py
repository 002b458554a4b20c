"""What a newcomer types first: each is answered in one line that says what to write."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import gymnasium
import pytest

from tests.conftest import Outcome

ANSWERS = {
    # settings under the names of other programs
    "total_timesteps=10000": "write trainer.max_steps=N",
    "agent.total_timesteps=10000": "write trainer.max_steps=N",
    "buffer_size=10000": "write agent.replay.capacity=N",
    "exploration_fraction=0.1": "write agent.exploration.schedule.steps=N",
    "exploration_final_eps=0.1": "write agent.exploration.schedule.end=E",
    "epsilon=0.1": "agent.exploration.schedule.start=E",
    "target_update_interval=100": "write agent.target_update_every=N",
    "target_network_frequency=100": "write agent.target_update_every=N",
    "train_freq=4": "write agent.train_every=N",
    "net_arch=[64,64]": "write agent/network=mlp agent.network.hidden=[64,64]",
    "hidden=64": "write agent/network=mlp agent.network.hidden=[64,64]",
    "agent.hidden=64": "write agent/network=mlp agent.network.hidden=[64,64]",
    "agent.network.hidden=[64,64]": "write agent/network=mlp agent.network.hidden=[64,64]",
    "agent/network=mlp agent.network.hidden=64": "agent.network.hidden must be a list in brackets",
    "n_envs=4": "write env.num_envs=N",
    "num_envs=4": "did you mean 'env.num_envs'",
    "env_id=CartPole-v1": "write env=gym env.id=ID",
    "lr=1e-3": "did you mean 'agent.learning_rate'",
    "learning-rate=1e-3": "did you mean 'agent.learning_rate'",
    "env.max_episode_steps=100": "write trainer.max_steps_per_episode=N",
    "device=gpu": "device must be auto, cpu, cuda",
    "agent.device=cuda:first": "device must be auto, cpu, cuda",
    "gpu=0": "device=cuda",
    "use_wandb=true": "write logging=[console,file,jsonl,wandb]",
    "output_dir=results": "write hydra.run.dir=DIR",
    "eval_freq=100": "write trainer.eval_frequency=N",
    "n_eval_episodes=5": "write trainer.eval_episodes=N",
    "save_freq=100": "write trainer.checkpoint_frequency=N",
    # options
    "agent=DQN": "did you mean agent=dqn?",
    "agent=Rainbow": "did you mean agent=rainbow?",
    "agent.replay=prioritised": "did you mean agent/replay=prioritized?",
    "agent/replay=prioritised": "did you mean agent/replay=prioritized?",
    "agent.loss.target=doubel": "did you mean agent/loss/target=double?",
    "agent/optimizer=sgd": "(available: adam, rmsprop)",
    "agent/network=CNN": "(available: auto, custom, impala_cnn",
    "env=CartPole-v1": "write env=gym env.id=CartPole-v1",
    "env=my_pkg.envs:MyEnv": "write env=gym env.id=my_pkg.envs:MyEnv",
    "env=ALE/Pong-v5": "write env=atari env.game=Pong",
    "env=PongNoFrameskip-v4": "write env=atari env.game=Pong",
    "env.id=ALE/Pong-v5": "env=atari env.game=Pong",
    "logging=none": "(available: console, csv, file, jsonl",
    # blanks and words
    "logging=[console, file]": "write it without blanks: logging=[console,file]",
    "seed=1 logging=[console, file, csv] agent=c51": "without blanks: logging=[console,file,csv]",
    "agent/network=mlp agent.network.hidden=[64, 64]": "without blanks: agent.network.hidden=[64,64]",
    "seed = 3": "write seed=3 without blanks",
    "seed= 3": "write seed=3 without blanks",
    "seed =3": "write seed=3 without blanks",
    "seed 3": "write seed=3",
    "eval": "write mode=eval checkpoint=PATH",
    "train": "'train' is not an override",
    "runs/latest.pt": "write resume=runs/latest.pt or mode=eval checkpoint=runs/latest.pt",
    "config.yaml": "write experiment=NAME",
    # flags of other programs
    "--seed 3": "write seed=3",
    "--seed=3": "write seed=3",
    "--episodes 1000": "write trainer.max_episodes=N",
    "-e 1000": "write trainer.max_episodes=N",
    "--config configs/default.yaml": "write experiment=NAME, or --config-dir=DIR",
    "-c configs/default.yaml": "write experiment=NAME, or --config-dir=DIR",
    "--resume results/latest.pt": "write resume=results/latest.pt",
    "-r results/latest.pt": "write resume=results/latest.pt",
    "--eval-only --checkpoint best.pt": "write mode=eval checkpoint=PATH",
    "--checkpoint best.pt": "write checkpoint=best.pt",
    "--output results": "write hydra.run.dir=DIR",
    "-o results": "write hydra.run.dir=DIR",
    "--wandb": "write logging=[console,file,jsonl,wandb]",
    "--total-timesteps 500": "write trainer.max_steps=N",
    "--env CartPole-v1": "write env=gym env.id=CartPole-v1",
    "--learning-rate 1e-3": "write agent.learning_rate=1e-3",
    "--batch-size 64": "write agent.batch_size=64",
    "--cfg jobs": "invalid choice: 'jobs'",
    # several values
    "seed=0,1": "add -m to run each, as in python -m dqn_runner -m seed=0,1",
    "-m agent.max_grad_norm=choice(null,1,10.5)": "write null,1,10.5 instead of choice(null,1,10.5)",
    "hydra/sweeper=optuna": "add -m, as in python -m dqn_runner -m hydra/sweeper=optuna",
    "hydra/sweeper=optuna hydra.sweeper.n_trials=3": "add -m",
    "hydra/launcher=joblib seed=1": "add -m",
    # numbers
    "trainer.max_steps=1e5": "write trainer.max_steps=100000",
    "agent.replay.capacity=1e11": "write agent.replay.capacity=100000000000",
    "agent.batch_size=64.0": "write agent.batch_size=64",
    "trainer.target_return=none": "write null",
}


@pytest.mark.parametrize("command", ANSWERS)
def test_a_newcomer_is_told_what_to_write(
    program: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    for name in [name for name in gymnasium.registry if name.startswith("ALE/")]:  # of other tests
        monkeypatch.delitem(gymnasium.registry, name)
    assert ANSWERS[command] in program(*shlex.split(command)).error


def test_flags_may_follow_overrides(program: Callable[..., Outcome]) -> None:
    done = program("seed=3", "--cfg", "job", "agent=c51")
    assert done.status == 0
    assert "seed: 3" in done.out
    assert "num_atoms: 101" in done.out


@pytest.mark.parametrize("budget", [1, 7, 300])
@pytest.mark.parametrize("agent", ["dqn", "per_dqn"])
def test_a_small_budget_needs_no_other_setting(
    program: Callable[..., Outcome], budget: int, agent: str
) -> None:
    options = (f"agent={agent}", "agent/learning_rate_schedule=linear", "trainer.eval_episodes=1")
    done = program(f"trainer.max_steps={budget}", *options, "hydra.run.dir=run")
    assert done.status == 0, done.err


def test_a_larger_budget_does_not_change_the_schedule_of_a_run(program: Callable[..., Outcome]) -> None:
    done = program("trainer.max_steps=200", "trainer.eval_episodes=1", "hydra.run.dir=run")
    assert done.status == 0, done.err
    done = program("trainer.max_steps=300", "trainer.eval_episodes=1", "hydra.run.dir=run")
    assert done.status == 0, done.err
    changed = done.out.splitlines()[:2]
    assert changed == ["changed for this session:", "trainer.max_steps: 200 -> 300"]
    assert "learning_starts: " not in done.out
