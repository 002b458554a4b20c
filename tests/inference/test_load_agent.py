"""`load_agent` gives the agent of a checkpoint without its environment, and imports nothing that it names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch

from dqn_runner import DQNAgent, DQNConfig, TrainedAgent, Trainer, TrainingConfig, UserError, load_agent
from dqn_runner.agent.losses.q_learning import QLearning, TDError
from dqn_runner.agent.losses.targets import DoubleTarget
from dqn_runner.agent.networks.architectures import Custom
from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.config.build import build_trainer
from dqn_runner.config.schema import fit_defaults, to_plain_config, to_typed_config
from dqn_runner.core.registry import import_path
from dqn_runner.envs.actions import ActionSpace
from dqn_runner.envs.stored_spaces import StoredSpaces, load_spaces
from tests.support.checkpoints import rewrite
from tests.support.composition import compose_config
from tests.support.probes import agent_options

SHORT = (
    *("trainer.max_steps=120", "trainer.eval_frequency=60", "trainer.eval_episodes=1", "logging=[]"),
    *("agent.learning_starts=20", "agent.batch_size=8", "agent.replay.capacity=200"),
    "trainer.max_steps_per_episode=50",
)


class Choices(gymnasium.Env[Any, Any]):
    """Episodes of four steps, with any action space."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, kind: str) -> None:
        self.action_space = {
            "shifted": gymnasium.spaces.Discrete(3, start=-1),
            "several": gymnasium.spaces.MultiDiscrete([2, 3]),
            "binary": gymnasium.spaces.MultiBinary(2),
        }[kind]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.left = 4
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.left -= 1
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), 1.0, self.left == 0, False, {}


def a_run(path: Path, *overrides: str) -> Trainer:
    cfg = compose_config(*SHORT, *overrides)
    fit_defaults(cfg)
    trainer = build_trainer(to_typed_config(cfg), path, {"config": to_plain_config(cfg)}, None)
    trainer.train()
    return trainer


def observations(agent: TrainedAgent, n: int = 16) -> Any:
    rng = np.random.default_rng(0)
    if agent.obs_dtype == "float32":
        return rng.normal(size=(n, *agent.obs_shape)).astype(np.float32)
    return rng.integers(256 if agent.obs_dtype == "uint8" else 2, size=(n, *agent.obs_shape)).astype(
        agent.obs_dtype
    )


VARIANTS: dict[str, list[str]] = {
    **{option: [f"agent={option}"] for option in agent_options()},
    "normalized": ["env.normalize_observations=true"],
    "bool images": ["env=minatar", "agent/network=minatar_cnn"],
    "byte images": [
        "env=gym",
        "env.id=tests.support.catch:Catch",
        "env.frame_stack=3",
        "agent/network=minatar_cnn",
    ],
}


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize("variant", VARIANTS)
def test_loaded_agent_and_its_module_have_the_values_of_the_trained_one(variant: str, tmp_path: Path) -> None:
    trainer = a_run(tmp_path / "run", *VARIANTS[variant])
    agent = load_agent(tmp_path / "run" / "checkpoints" / "latest.pt")
    assert agent.step == 120
    obs = observations(agent)
    expected = trainer.agent.q_values(obs)
    assert np.array_equal(agent.q_values(obs), expected)
    assert np.array_equal(agent.predict(obs), expected.argmax(-1))
    assert agent.predict(obs[0]) == expected[0].argmax()
    module = agent.to_module()
    with torch.no_grad():
        values = module(torch.from_numpy(obs)).numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in module.parameters()) == trainer.agent.num_parameters()
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.usefixtures("no_curves")
def test_the_run_is_named_by_its_directory_and_not_by_that_of_a_copied_file(tmp_path: Path) -> None:
    a_run(tmp_path / "my_run")
    checkpoint = tmp_path / "my_run" / "checkpoints" / "latest.pt"
    assert load_agent(checkpoint).provenance["run"] == "my_run"
    (tmp_path / "copy.pt").write_bytes(checkpoint.read_bytes())
    assert load_agent(tmp_path / "copy.pt").provenance["run"] is None


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize("kind", ["shifted", "several", "binary"])
def test_actions_are_those_of_the_environment(kind: str, tmp_path: Path) -> None:
    env = f"env.id={__name__}:Choices"
    trainer = a_run(tmp_path / "run", "env=gym", env, f"env.kwargs.kind={kind}")
    agent = load_agent(tmp_path / "run" / "checkpoints" / "latest.pt")
    space = Choices(kind).action_space
    obs = observations(agent, 40)
    numbers = trainer.agent.greedy(obs)
    actions = agent.predict(obs)
    for number, action, single in zip(numbers, actions, map(agent.predict, obs), strict=True):
        assert space.contains(single)
        assert np.array_equal(action, single)
        assert np.array_equal(single, trainer.evaluator._checked._action(int(number)))
    explored = [agent.predict(obs[0], deterministic=False) for _ in range(200)]
    assert all(space.contains(each) for each in explored)
    assert len({str(each) for each in explored}) > 1


@pytest.mark.usefixtures("no_curves")
def test_a_run_directory_is_its_best_checkpoint_and_exploration_is_repeatable(tmp_path: Path) -> None:
    a_run(tmp_path / "run", "agent.exploration.schedule.end=0.5")
    checkpoints = tmp_path / "run" / "checkpoints"
    best = load_checkpoint(checkpoints / "best.pt")["step"]
    assert load_agent(tmp_path / "run").step == load_agent(checkpoints).step == best
    assert load_agent(str(checkpoints / "latest.pt")).step == 120
    (checkpoints / "best.pt").unlink()
    first, again, other = (load_agent(tmp_path / "run", seed=seed) for seed in (0, np.int64(0), 1))
    assert first.step == 120
    obs = observations(first, 64)
    chosen = [agent.predict(obs, deterministic=False).tolist() for agent in (first, again, other)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert chosen[0] != first.predict(obs).tolist()
    for seed in ("x", 1.5, -1, None, True):
        with pytest.raises(UserError, match=rf"^seed={seed!r} is not an integer of at least 0$"):
            load_agent(tmp_path / "run", seed=cast("int", seed))


@pytest.mark.usefixtures("no_curves")
def test_the_agent_of_a_script_is_loaded(tmp_path: Path) -> None:
    loss = QLearning(target=DoubleTarget(), error=TDError.squared)
    made = DQNAgent(DQNConfig(state_dim=4, action_dim=2, learning_starts=20, batch_size=8, loss=loss))
    config = TrainingConfig(max_episodes=4, eval_frequency=2, eval_episodes=1)
    Trainer(made, gymnasium.make("CartPole-v1"), config, output_dir=tmp_path).train()
    agent = load_agent(tmp_path / "checkpoints" / "latest.pt")
    obs = observations(agent)
    assert np.array_equal(agent.q_values(obs), made.q_values(obs))
    assert agent._agent.config.loss == loss


@pytest.mark.usefixtures("no_curves")
def test_observations_that_do_not_fit_are_rejected(tmp_path: Path) -> None:
    a_run(tmp_path / "run", *VARIANTS["byte images"])
    agent = load_agent(tmp_path / "run")
    shape = agent.obs_shape
    bad: dict[str, Any] = {
        rf"observations of shape {shape}, or a batch".replace("(", r"\(").replace(")", r"\)"): np.zeros(
            (2, 2)
        ),
        "an array of numbers, got str": "left",
        "an array of numbers, got NoneType": None,
        "an array of numbers, got ndarray of dtype object": np.full(shape, None),
        "an array of numbers, got Tensor of dtype torch.bfloat16": torch.zeros(shape, dtype=torch.bfloat16),
        "the batch of observations is empty": np.zeros((0, *shape)),
        "of dtype uint8; got other numbers": np.full(shape, 0.5),
    }
    for message, obs in bad.items():
        with pytest.raises(UserError, match=message):
            agent.predict(obs)
    assert agent.predict(np.full(shape, 3.0)) == agent.predict(np.full(shape, 3, np.uint8))
    assert agent.predict(torch.zeros(shape)) == agent.predict(np.zeros(shape).tolist())


@pytest.mark.usefixtures("no_curves")
def test_what_a_checkpoint_names_is_imported_only_with_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_nets.py").write_text(
        "import torch\nfrom pathlib import Path\nPath('imported').touch()\n\n"
        "def net(obs_shape, num_outputs):\n    return torch.nn.Linear(obs_shape[0], num_outputs)\n"
    )
    monkeypatch.chdir(tmp_path)
    trainer = a_run(tmp_path / "run", "agent/network=custom", "agent.network.target=my_nets:net")
    Path("imported").unlink()
    sys.modules.pop("my_nets")
    with pytest.raises(UserError, match=r"asks to import my_nets:net; .* load_agent\(\.\.\., trust=True\)"):
        load_agent("run")
    assert not Path("imported").exists()
    agent = load_agent("run/checkpoints/latest.pt", trust=True)
    obs = observations(agent)
    assert np.array_equal(agent.q_values(obs), trainer.agent.q_values(obs))


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize("name", ["agent/network=custom", import_path(Custom)])
def test_every_name_of_the_custom_network_needs_trust(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    touch = f"from pathlib import Path\nPath({str(tmp_path / 'imported')!r}).touch()\n"
    (tmp_path / "evil_nets.py").write_text(touch)
    a_run(tmp_path / "run")
    latest = tmp_path / "run" / "checkpoints" / "latest.pt"
    network = {"_target_": name, "target": "evil_nets:net", "kwargs": {}}
    rewrite(latest, lambda document: document["source"]["config"]["agent"].update(network=network))
    with pytest.raises(UserError, match="asks to import evil_nets:net"):
        load_agent(latest)
    assert not (tmp_path / "imported").exists()


@pytest.mark.usefixtures("no_curves")
def test_sizes_that_are_not_those_of_the_stored_arrays_are_rejected_before_allocation(tmp_path: Path) -> None:
    a_run(tmp_path / "run")
    latest = tmp_path / "run" / "checkpoints" / "latest.pt"
    spaces = json.loads(load_checkpoint(latest)["state"]["spaces"])
    large = {**spaces["actions"], "sizes": [2**31]}
    for changes in ({"actions": large}, {"obs_shape": [2**31, 2**31]}, {"obs_dtype": "uint8"}):
        text = json.dumps({**spaces, **changes})
        rewrite(latest, lambda document, text=text: document["state"].update(spaces=text))
        with pytest.raises(UserError, match=r"state\.spaces do not fit"):
            load_agent(latest)


@pytest.mark.usefixtures("no_curves")
def test_the_global_generator_of_torch_is_left_as_it_was(tmp_path: Path) -> None:
    a_run(tmp_path / "run")
    before = torch.get_rng_state()
    load_agent(tmp_path / "run").to_module()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("spaces", "{}", "obs_shape"),
        ("spaces", "nonsense", "malformed"),
        ("spaces", 3, "does not hold such a run"),
        ("agent", {}, "is missing"),
    ],
)
def test_nonsense_in_a_checkpoint_is_one_line(tmp_path: Path, key: str, value: Any, message: str) -> None:
    a_run(tmp_path / "run")
    latest = tmp_path / "run" / "checkpoints" / "latest.pt"
    rewrite(latest, lambda document: document["state"].update({key: value}))
    with pytest.raises(UserError, match=message) as error:
        load_agent(latest)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"obs_shape": []},
        {"obs_shape": [0]},
        {"obs_shape": [2**40]},
        {"obs_dtype": "float16"},
        {"actions": {"sizes": [5000, 5000], "start": [0, 0], "shape": [2], "dtype": "int64"}},
        {"actions": {"sizes": [2, 2], "start": [0], "shape": [2], "dtype": "int64"}},
        {"actions": {"sizes": [2], "start": [0], "shape": [], "dtype": "object"}},
        {"actions": {"sizes": [], "start": [], "shape": [], "dtype": "int64"}},
    ],
)
def test_spaces_that_no_environment_has_are_rejected(changes: dict[str, Any]) -> None:
    spaces = {
        "obs_shape": [4],
        "obs_dtype": "float32",
        "actions": {"sizes": [2], "start": [0], "shape": [], "dtype": "int64"},
    }
    expected = StoredSpaces((4,), "float32", ActionSpace((2,), (0,), (), "int64"))
    assert load_spaces(json.dumps(spaces)) == expected
    with pytest.raises(ValueError, match=r"spaces|Expected"):
        load_spaces(json.dumps({**spaces, **changes}))


@pytest.mark.slow
def test_loading_makes_no_environment(finished_run: Path) -> None:
    code = (
        "import sys\nfrom dqn_runner import load_agent\n"
        f"agent = load_agent({str(finished_run)!r})\nprint(agent.predict([0.0, 0.1, 0.0, 0.1]))\n"
        "print(sorted({'gymnasium.envs.classic_control', 'optuna', 'matplotlib'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    action, imported = done.stdout.splitlines()
    assert action in ("0", "1")
    assert imported == "[]"
