"""A loop with the semantics of CleanRL's dqn.py, as its page describes them, in our own words.

Steps are counted from 0, events follow the step that they are counted by, the update precedes the target
update, epsilon decays from the first step, and the error is squared.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import nn


@dataclass(kw_only=True)
class Arguments:
    """Those of dqn.py, by their names there, with values for a small task."""

    seed: int = 1
    total_timesteps: int = 1_500
    learning_rate: float = 1e-3
    gamma: float = 0.99
    target_network_frequency: int = 100
    batch_size: int = 32
    start_e: float = 1.0
    end_e: float = 0.05
    exploration_fraction: float = 0.2
    learning_starts: int = 100
    train_frequency: int = 2


def epsilon(arguments: Arguments, step: int) -> float:
    done = min(1.0, step / (arguments.exploration_fraction * arguments.total_timesteps))
    return arguments.start_e + done * (arguments.end_e - arguments.start_e)


def tensors(stored: list[tuple[Any, ...]], rows: list[int]) -> list[torch.Tensor]:
    return [torch.as_tensor(np.array(column)) for column in zip(*(stored[row] for row in rows), strict=True)]


def train(env: gymnasium.Env[Any, Any], arguments: Arguments) -> float:
    """Train on an environment with vectors; returns the mean return of ten greedy episodes."""
    drawn = random.Random(arguments.seed)
    torch.manual_seed(arguments.seed)
    inputs, actions = env.observation_space.shape[0], int(env.action_space.n)  # type: ignore
    online, target = (
        nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, actions))
        for _ in range(2)
    )
    target.load_state_dict(online.state_dict())
    optimizer = torch.optim.Adam(online.parameters(), lr=arguments.learning_rate)
    stored: list[tuple[Any, ...]] = []
    obs, _ = env.reset(seed=arguments.seed)
    for step in range(arguments.total_timesteps):
        greedy = drawn.random() >= epsilon(arguments, step)
        action = int(online(torch.as_tensor(obs)).argmax()) if greedy else drawn.randrange(actions)
        successor, reward, terminated, truncated, _ = env.step(action)
        stored.append((obs, action, np.float32(reward), successor, np.float32(terminated)))
        obs = env.reset()[0] if terminated or truncated else successor
        if step <= arguments.learning_starts:
            continue
        if step % arguments.train_frequency == 0:
            rows = [drawn.randrange(len(stored)) for _ in range(arguments.batch_size)]
            before, taken, rewards, after, ended = tensors(stored, rows)
            with torch.no_grad():
                goal = rewards + arguments.gamma * (1 - ended) * target(after).amax(1)
            value = online(before).gather(1, taken.unsqueeze(1)).squeeze(1)
            optimizer.zero_grad()
            nn.functional.mse_loss(value, goal).backward()
            optimizer.step()
        if step % arguments.target_network_frequency == 0:
            target.load_state_dict(online.state_dict())
    return float(np.mean([greedy_return(env, online, seed) for seed in range(10)]))


def greedy_return(env: gymnasium.Env[Any, Any], network: nn.Module, seed: int) -> float:
    obs, _ = env.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        obs, reward, terminated, truncated, _ = env.step(int(network(torch.as_tensor(obs)).argmax()))
        total, ended = total + float(reward), terminated or truncated
    return total
