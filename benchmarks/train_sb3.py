"""One run of stable-baselines3 with the settings of a recipe; benchmarks/results.py starts it.

    python benchmarks/train_sb3.py SEED FILE OVERRIDES...

The settings are those that dqn_runner composes from the overrides; what neither stable-baselines3 nor
benchmarks/sb3_agents.py has is rejected.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch
import yaml
from recipes import EPISODES, Run
from sb3_agents import learning, make_agent
from sb3_contrib import QRDQN
from stable_baselines3 import DQN

from dqn_runner.agent.config import DQNConfig
from dqn_runner.agent.schedules import Linear
from dqn_runner.core.rng import eval_seeds
from dqn_runner.core.settings import fitted_defaults
from dqn_runner.run.compatibility import leaves

PLAIN = ("agent/network=mlp", "env=gym")
"""Options whose other settings do what stable-baselines3 does by default."""
TRANSLATED = {
    *("agent.learning_rate", "agent.replay.capacity", "agent.learning_starts", "agent.batch_size"),
    *("agent.gamma", "agent.tau", "agent.train_every", "agent.gradient_steps", "agent.target_update_every"),
    *(f"agent.exploration.schedule.{key}" for key in ("steps", "start", "end")),
    *("agent.max_grad_norm", "agent.network.hidden", "env.id", "env.kwargs"),
    *(f"agent.network.{key}" for key in ("noisy", "noisy_std", "dueling", "cosine_embedding_dim")),
    *(
        f"agent.loss.num_{key}"
        for key in ("quantiles", "tau_samples", "tau_prime_samples", "quantile_samples")
    ),
    *(f"agent.loss.target.{key}" for key in ("_target_", "alpha", "temperature", "floor")),
    "agent.loss._target_",
}
"""Settings that have a counterpart in stable-baselines3, or in benchmarks/sb3_agents.py."""
GREEDY = "dqn_runner.agent.exploration.Greedy"
ALLOWED = [("agent.exploration._target_", GREEDY), ("agent.loss.kappa", 1.0)]
"""Values of other settings that have one too."""
NEUTRAL = {"agent.seed", "agent.compile", "agent.device", "env.reward_threshold"}
"""Settings that do not change what is learned."""


def composed(overrides: list[str]) -> dict[str, Any]:
    """The configuration of dqn_runner."""
    command = [sys.executable, "-m", "dqn_runner", *overrides, "--cfg", "job", "--resolve"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:  # it has said why
        sys.exit(done.returncode)
    return yaml.safe_load(done.stdout)


def with_mlp(overrides: list[str]) -> dict[str, Any]:
    """The configuration; the network that is chosen by the observation is an MLP for vectors."""
    config = composed(overrides)
    env = gymnasium.make(config["env"]["id"], **config["env"]["kwargs"])
    if (
        config["agent"]["network"]["_target_"].endswith(".Auto")
        and len(env.observation_space.shape or ()) == 1
    ):
        return composed([*overrides, "agent/network=mlp"])
    return config


def untranslated(config: dict[str, Any], plain: dict[str, Any]) -> list[str]:
    """The settings of `config` that differ from `plain` and have no counterpart in stable-baselines3."""
    ours, theirs = (leaves({key: each[key] for key in ("agent", "env")}) for each in (config, plain))
    keys = {".".join(path): path for path in ours}
    return [
        f"{key}={ours[path]}"
        for key, path in keys.items()
        if key not in TRANSLATED | NEUTRAL
        and (key, ours[path]) not in ALLOWED
        and not key.startswith("env.kwargs.")
        and (path not in theirs or ours[path] != theirs[path])
    ]


def make_model(config: dict[str, Any], seed: int) -> DQN | QRDQN:
    """The agent with the settings of `config`; exits if there is none with such settings."""
    agent, env, steps = config["agent"], config["env"], config["trainer"]["max_steps"]
    if other := untranslated(config, composed([*PLAIN, f"env.id={env['id']}"])):
        sys.exit(f"stable-baselines3 has no such settings: {', '.join(other)}")
    budget = fitted_defaults(DQNConfig, steps) | fitted_defaults(Linear, steps)
    schedule = agent["exploration"].get("schedule", {"steps": None, "start": 0.0, "end": 0.0})
    exploration_steps = budget["steps"] if schedule["steps"] is None else schedule["steps"]
    starts = budget["learning_starts"] if agent["learning_starts"] is None else agent["learning_starts"]
    settings = {
        "env": gymnasium.make(env["id"], **env["kwargs"]),
        "learning_rate": agent["learning_rate"],
        "buffer_size": agent["replay"]["capacity"],
        "learning_starts": starts,
        "batch_size": agent["batch_size"],
        "gamma": agent["gamma"],
        "tau": agent["tau"],
        "train_freq": agent["train_every"],
        "gradient_steps": agent["gradient_steps"],
        "target_update_interval": agent["target_update_every"],
        "exploration_fraction": exploration_steps / steps,
        "exploration_initial_eps": schedule["start"],
        "exploration_final_eps": schedule["end"],
        "max_grad_norm": agent["max_grad_norm"] or float("inf"),
        "seed": seed,
        "device": "cpu",
    }
    try:
        return make_agent(agent, settings)
    except ValueError as error:
        sys.exit(f"stable-baselines3 has no such agent: {error}")


def score(model: DQN | QRDQN, env: gymnasium.Env[Any, Any], purpose: str, episodes: int) -> float:
    """Mean return of greedy episodes, whose seeds are those of dqn_runner for the same purpose."""
    seeds, returns = eval_seeds(purpose), []
    for episode in range(episodes):
        obs, _ = env.reset(seed=seeds(episode))
        total, ended = 0.0, False
        while not ended:
            action, _ = model.predict(obs, deterministic=True)
            obs, reward, terminated, truncated, _ = env.step(int(action))
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    return float(np.mean(returns))


def main() -> None:
    seed, target, overrides = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    torch.set_num_threads(1)
    config = with_mlp(overrides)
    steps, every = config["trainer"]["max_steps"], config["trainer"]["eval_frequency"]
    model = make_model(config, seed)
    env = gymnasium.make(config["env"]["id"], **config["env"]["kwargs"])
    curve: list[float] = []

    def evaluate(seen: dict[str, Any], _: Any) -> bool:
        if seen["self"].num_timesteps % every == 0:
            curve.append(score(model, env, "eval", config["trainer"]["eval_episodes"]))
        return True

    start = time.perf_counter()
    with learning(model):
        model.learn(steps, callback=evaluate)
    seconds = round(time.perf_counter() - start, 1)
    final = score(model, env, "test", EPISODES)
    found = Run(seed=seed, score=final, env_steps=model.num_timesteps, seconds=seconds, curve=curve)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(
        json.dumps({"command": overrides, "version": stable_baselines3.__version__, "run": asdict(found)})
    )


if __name__ == "__main__":
    main()
