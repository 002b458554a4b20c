"""The configuration tree: it composes, agrees with the Python defaults, and answers mistakes readably."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from dqn_runner.agent.config import DQNConfig
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.losses.q_learning import QLearning
from dqn_runner.agent.losses.targets import DoubleTarget
from dqn_runner.agent.networks.architectures import Auto, Custom
from dqn_runner.agent.optimizers import Adam
from dqn_runner.agent.schedules import Constant, Linear
from dqn_runner.cli.main import CONF
from dqn_runner.config.build import build_agent
from dqn_runner.config.schema import RunConfig, apply_env_target, to_plain_config
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import options, slots
from dqn_runner.core.types import EnvSpec
from dqn_runner.envs.gym import GymEnv
from dqn_runner.replay.uniform import UniformReplay
from dqn_runner.run.compatibility import leaves
from dqn_runner.training import checks, resources
from dqn_runner.training.config import TrainingConfig
from tests.conftest import Outcome

FILES = sorted(CONF.rglob("*.yaml"))
RECIPES = [path.stem for path in FILES if path.parent.name == "experiment"]
MISSING = "???"


@contextmanager
def tree(directory: Path = CONF) -> Iterator[None]:
    with initialize_config_dir(str(directory), version_base="1.3"):
        yield


def configuration(*overrides: str) -> DictConfig:
    with tree():
        return compose("config", overrides=list(overrides))


def option_ids(item: Any) -> str | None:
    return "/".join(item) if isinstance(item, tuple) else None


def file_id(path: Path) -> str:
    return str(path.relative_to(CONF).with_suffix(""))


def choose(group: str, name: str) -> list[str]:
    """The overrides that select an option; those of a logger select it alone."""
    return [f"{group}=[{name}]" if group == "logging" else f"{group}={name}"]


class TestTheTreeAndPythonAgree:
    @pytest.mark.parametrize(("cls", "place"), list(options().items()), ids=option_ids)
    def test_each_option_becomes_the_object_of_its_python_defaults(self, cls: type, place: tuple[str, str]):
        group, name = place
        path = group.replace("/", ".") + (f".{name}" if group == "logging" else "")
        fields = dataclasses.fields(cls)
        required = {f.name: "given" for f in fields if isinstance(f.default, str) and f.default == MISSING}
        given = [f"{path}.{field}={value}" for field, value in required.items()]
        environment = [] if group == "env" else ["env=gym"]  # it has no reward_threshold to follow

        cfg = configuration(*environment, *choose(group, name), *given)
        made = instantiate(OmegaConf.select(cfg, path), _convert_="object")

        assert type(made) is cls
        assert made == cls(**required)

    @pytest.mark.parametrize("path", [p for p in FILES if p.parent != CONF], ids=file_id)
    def test_each_file_of_a_group_becomes_a_run(self, path: Path):
        group = path.parent.relative_to(CONF).as_posix()
        run = instantiate(configuration(*choose(group, path.stem)), _convert_="object")
        assert isinstance(run, RunConfig)
        assert isinstance(run.agent, DQNConfig)
        assert isinstance(run.trainer, TrainingConfig)

    def test_slots_hold_objects_and_lists_and_mappings_are_plain(self):
        run = instantiate(configuration("+env.kwargs.size={a: [1]}"), _convert_="object")
        assert run.agent == DQNConfig()
        for name, default in slots(DQNConfig).items():
            assert type(getattr(run.agent, name)) is default
        assert [type(value) for value in (run.env.kwargs, run.env.kwargs["size"]["a"], run.env.wrappers)] == [
            dict,
            list,
            list,
        ]

    def test_a_part_inside_a_part_is_selected_and_set(self):
        overrides = ("agent/exploration/schedule=constant", "agent.exploration.schedule.value=0.1")
        run = instantiate(configuration(*overrides), _convert_="object")
        assert run.agent.exploration == EpsilonGreedy(schedule=Constant(value=0.1))

    def test_double_dqn_is_dqn_but_for_the_loss(self):
        run = instantiate(configuration("agent=double_dqn"), _convert_="object")
        assert run.agent == DQNConfig(loss=QLearning(target=DoubleTarget()))

    def test_the_agent_follows_the_seed_and_the_target_the_environment(self):
        cfg = configuration("seed=7", "env.reward_threshold=12.5")
        assert cfg.agent.seed == 7
        assert cfg.trainer.target_return == 12.5
        assert configuration("env=gym").trainer.target_return is None


class TestFilesSayOnlyWhatDiffers:
    @pytest.mark.parametrize("path", FILES, ids=file_id)
    def test_no_value_restates_what_holds_without_it(self, path: Path, tmp_path: Path):
        text = path.read_text()
        values = OmegaConf.load(path)
        assert isinstance(values, DictConfig)
        own: dict[str, Any] = OmegaConf.to_container(values)  # pyright: ignore[reportAssignmentType]
        defaults = own.pop("defaults", [])
        package = re.search(r"^# @package (\S+)", text, flags=re.MULTILINE)
        group = path.parent.relative_to(CONF).as_posix()
        if path.parent == CONF or (package and package[1] == "_global_"):
            package_path: list[str] = []
        else:
            package_path = (package[1] if package else group.replace("/", ".")).split(".")
        without = tmp_path / "conf"
        shutil.copytree(CONF, without)
        header = f"# @package {package[1]}\n" if package else ""
        stripped = header + OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults}))
        (without / path.relative_to(CONF)).write_text(stripped)

        chosen = [] if path.parent == CONF else choose(group, path.stem)
        with tree(without):
            cfg = compose("config", overrides=chosen, return_hydra_config=True)

        otherwise = leaves(OmegaConf.to_container(cfg, enum_to_str=True))  # pyright: ignore[reportArgumentType]
        for leaf, value in leaves(own).items():
            key = (*package_path, *leaf)
            assert otherwise.get(key, ...) != value, f"{path.name} restates {'.'.join(key)}: {value}"


class TestRecipes:
    @pytest.mark.filterwarnings("ignore:builtin type .* has no __module__:DeprecationWarning")  # Box2D's SWIG
    @pytest.mark.parametrize("name", RECIPES)
    def test_a_recipe_fits_its_environment(self, name: str, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(checks, "available_memory", lambda: 2**40)  # the recipe's, not this machine's
        cfg = configuration(f"experiment={name}")
        run = instantiate(cfg, _convert_="object")
        spec = build_agent(run.agent, run.env).spec
        assert run.agent.seed == cfg.seed
        checks.check(run.agent, spec, run.trainer, spec)

    def test_a_value_of_the_command_line_wins_over_the_recipe(self):
        name = RECIPES[0]
        cfg = configuration(f"experiment={name}", "agent.learning_rate=0.125")
        assert cfg.agent.learning_rate == 0.125


UNKNOWN = [
    ("agent.lr=1", "agent.learning_rate"),
    ("learning_rate=1", "agent.learning_rate"),
    ("agent.loss.eror=huber", "agent.loss.error"),
    ("agent.exploration.schedule.step=3", "agent.exploration.schedule.steps"),
    ("tariner.max_steps=3", "trainer"),
    ("trainer.max_episdes=3", "trainer.max_episodes"),
    ("max_steps=3", "trainer.max_steps"),
    ("evaluator.sed=3", "evaluator.seed"),
    ("env.reward_treshold=3", "env.reward_threshold"),
    ("logging.console.progres_bar=false", "logging.console.progress_bar"),
    ("hydra.run.dri=x", "hydra.run.dir"),
    ("sed=3", "seed"),
    ("agnt=dqn", "agent"),
    ("agent/los=q_learning", "agent/loss"),
]

NO_SUCH_OPTION = [
    ("agent=dubble_dqn", "agent=double_dqn"),
    ("env=cartpol", "env=cartpole"),
    ("agent/loss=qlearning", "agent/loss=q_learning"),
    ("agent/exploration/schedule=lin", "agent/exploration/schedule=linear"),
    ("logging=[console,wandbb]", "logging=wandb"),
    (f"experiment={RECIPES[0][:-1] if RECIPES else ''}", f"experiment={RECIPES[0] if RECIPES else ''}"),
]

WRONG_VALUE = [
    (
        "trainer.frequency_unit=hours",
        "trainer.frequency_unit: Invalid value 'hours', expected one of [episodes, steps]",
    ),
    ("agent.loss.error=hubert", "agent.loss.error: Invalid value 'hubert', expected one of [huber, squared]"),
    ("agent.batch_size=abc", "agent.batch_size: Value 'abc' of type 'str' could not be converted to Integer"),
    ("agent.batch_size=1.5", "agent.batch_size: Value '1.5' of type 'float'"),
    ("agent.learning_rate=fast", "agent.learning_rate: Value 'fast'"),
    ("env.wrappers=3", "env.wrappers: "),
    ("seed=x", "seed: Value 'x'"),
    ("agent.gamma=2", "agent.gamma must "),
    ("agent.exploration.schedule.steps=0", "steps >= 1, got 0"),
    ("trainer.keep_last=-1", "trainer.keep_last"),
    ("trainer.max_steps=null", "set trainer.max_episodes or trainer.max_steps"),
    ("evaluator.episodes=0", "evaluator.episodes must be at least 1, got 0"),
    ("agent/network=custom", "agent.network.target must be given"),
    ("env.id=NoSuchEnv-v0", "env.id=NoSuchEnv-v0: Environment `NoSuchEnv` doesn't exist"),
    ("env.id=no_pkg.envs:MyEnv-v0", "needs the module 'no_pkg.envs'"),
    ("env.id=no_pkg.envs.MyEnv", "env.id=no_pkg.envs.MyEnv cannot be imported"),
    ("env.id=Pendulum-v1", "DQN needs a Discrete action space"),
    ("env.num_envs=0", "env.num_envs must be at least 1, got 0"),
    ("env.reward_clip=0", "env.reward_clip must be a positive number, got 0.0"),
    ("env.reward_scale=-1", "env.reward_scale must be a positive number, got -1.0"),
    ("env.frame_stack=0", "env.frame_stack must be at least 1, got 0"),
    ("env.vectorization=threads", "env.vectorization: Invalid value 'threads', expected one of [sync,"),
    ("env.observation_keys=[image]", "env.observation_keys=['image'] needs Dict observations"),
    ("env.id=FrozenLake-v1", "FrozenLake-v1 has Discrete(16). env.flatten_observation=true makes one vector"),
    ("env.wrappers=[no_pkg.Wrapper]", "env.wrappers=no_pkg.Wrapper cannot be imported"),
    ("agent.state_dim=3", "the agent was built for observations (3,) and 2 actions"),
    ("mode=eval", "mode=eval needs checkpoint=PATH"),
    ("agent", "missing EQUAL"),
    ("agent.gamma=[", "no viable alternative"),
]


class TestMistakesAreAnsweredInOneLine:
    """`Outcome.error` asserts exit status 2, no traceback and a single line."""

    @pytest.mark.parametrize(("wrong", "right"), UNKNOWN)
    def test_an_unknown_key_suggests_the_nearest(
        self, program: Callable[..., Outcome], wrong: str, right: str
    ):
        key = wrong.partition("=")[0]
        answer = program(wrong).error
        assert re.match(rf"unknown key '({re.escape(key)}|{re.escape(key.partition('.')[0])})'", answer)
        assert answer.endswith(f"; did you mean '{right}'?")

    @pytest.mark.parametrize(("wrong", "right"), NO_SUCH_OPTION)
    def test_an_unknown_option_suggests_the_nearest_and_lists_all(
        self, program: Callable[..., Outcome], wrong: str, right: str
    ):
        answer = program(wrong).error
        assert f"did you mean {right}?" in answer
        group, _, name = right.partition("=")
        listed = re.search(r"\(available: (.*)\)$", answer)
        assert listed
        assert name in listed[1].split(", "), group

    @pytest.mark.parametrize(("wrong", "answer"), WRONG_VALUE)
    def test_a_wrong_value_is_named(self, program: Callable[..., Outcome], wrong: str, answer: str):
        assert answer in program(wrong).error

    def test_a_variable_that_is_not_set_is_named(self, program: Callable[..., Outcome]):
        answer = program("env.id=${oc.env:NOT_SET_ANYWHERE}").error
        assert answer.startswith("KeyError")
        assert "'NOT_SET_ANYWHERE' not found" in answer

    def test_a_setting_of_a_logger_that_is_not_used_says_so(self, program: Callable[..., Outcome]):
        answer = program("logging.wandb.mode=offline").error
        assert "logging.wandb" in answer
        assert "logging=[" in answer

    @pytest.mark.parametrize(
        "wrong",
        [
            "agent.loss=3",
            "agent.exploration.schedule=null",
            "~agent.network",
            "~agent",
            "agent=null",
            "env=3",
        ],
    )
    def test_a_part_that_is_no_part_is_named(self, program: Callable[..., Outcome], wrong: str):
        assert wrong.strip("~").partition("=")[0] in program(wrong).error

    def test_a_part_that_cannot_be_imported_is_named(self, program: Callable[..., Outcome]):
        answer = program("agent.network._target_=no_pkg.Net").error
        assert "agent.network" in answer
        assert "no_pkg" in answer

    def test_the_program_itself_answers_so(self, run_cli_here: Callable[..., Outcome]):
        assert run_cli_here("agent.lr=1").error

    def test_hydra_full_error_shows_where_it_came_from(self, run_cli_here: Callable[..., Outcome]):
        done = run_cli_here("agent.lr=1", env={"HYDRA_FULL_ERROR": "1"})
        assert done.status == 2
        assert "Traceback" in done.err


SPEC = EnvSpec(obs_shape=(4,), num_actions=2)


def problems(agent: DQNConfig, trainer: TrainingConfig | None = None, spec: EnvSpec = SPEC) -> str:
    with pytest.raises(UserError) as caught:
        checks.check(agent, spec, trainer or TrainingConfig(), SPEC)
    return str(caught.value)


class TestSettingsAreCheckedAgainstEachOther:
    def test_the_defaults_pass(self):
        checks.check(DQNConfig(), SPEC, TrainingConfig(max_steps=100_000), SPEC)

    def test_edges_pass(self):
        agent = DQNConfig(
            batch_size=50,
            learning_starts=50,
            replay=UniformReplay(capacity=50),
            exploration=EpsilonGreedy(schedule=Linear(steps=51)),
        )
        checks.check(agent, SPEC, TrainingConfig(max_steps=51), SPEC)

    def test_a_batch_larger_than_the_replay(self):
        agent = DQNConfig(batch_size=129, learning_starts=10, replay=UniformReplay(capacity=128))
        assert problems(agent) == "agent.batch_size=129 is larger than agent.replay.capacity=128"

    def test_learning_starts_after_the_replay_is_full(self):
        agent = DQNConfig(learning_starts=501, replay=UniformReplay(capacity=500))
        assert problems(agent).startswith(
            "agent.learning_starts=501 is larger than agent.replay.capacity=500"
        )

    def test_learning_starts_after_the_budget(self):
        agent = DQNConfig(learning_starts=500, exploration=EpsilonGreedy(schedule=Constant()))
        assert problems(agent, TrainingConfig(max_steps=500)) == (
            "agent.learning_starts=500 is not below trainer.max_steps=500: no update would be made"
        )

    def test_a_schedule_longer_than_the_budget(self):
        agent = DQNConfig(exploration=EpsilonGreedy(schedule=Linear(steps=2001)))
        assert problems(agent, TrainingConfig(max_steps=2000)).startswith(
            "agent.exploration.schedule takes 2001 env steps, longer than trainer.max_steps=2000"
        )

    def test_a_schedule_without_a_budget_in_steps_passes(self):
        agent = DQNConfig(exploration=EpsilonGreedy(schedule=Linear(steps=10**9)))
        checks.check(agent, SPEC, TrainingConfig(max_episodes=1), SPEC)

    def test_a_replay_that_does_not_fit_says_what_it_needs(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(checks, "available_memory", lambda: 2**30)
        agent = DQNConfig(replay=UniformReplay(capacity=2**26))  # of 48 bytes each
        answer = problems(agent)
        assert "needs 3.0 GiB of memory for observations (4,) float32, but 1.0 GiB are free" in answer
        fits = int(answer.rpartition("a capacity of ")[2].split()[0])
        assert 2**23 < fits < 2**30 / 48

    def test_memory_is_measured(self):
        assert 2**20 < resources.available_memory() < 2**50

    def test_an_agent_for_another_environment(self):
        other = EnvSpec(obs_shape=(60,), num_actions=7)
        assert problems(DQNConfig(), spec=other).startswith(
            "the agent was built for observations (60,) and 7 actions, the environment has (4,) and 2"
        )

    def test_everything_wrong_is_listed_at_once(self):
        agent = DQNConfig(batch_size=129, learning_starts=200, replay=UniformReplay(capacity=128))
        answer = problems(agent, TrainingConfig(max_steps=100))
        assert answer.count("; ") >= 3
        for key in ("agent.batch_size", "agent.learning_starts", "agent.exploration.schedule"):
            assert key in answer

    def test_the_program_checks_before_the_first_step(self, program: Callable[..., Outcome], tmp_path: Path):
        answer = program("agent.replay.capacity=100", "trainer.max_steps=900", "hydra.run.dir=run").error
        for key in ("agent.batch_size", "agent.learning_starts", "agent.exploration.schedule"):
            assert key in answer
        assert not (tmp_path / "run" / "checkpoints").exists()


class TestEnvTarget:
    """`env._target_=` on a gym environment names what to make."""

    def test_a_class_becomes_the_id_and_keeps_the_settings(self):
        cfg = configuration("env._target_=my_pkg.MyEnv", "env.num_envs=3", "+env.kwargs.size=5")
        apply_env_target(cfg, [])
        made = instantiate(cfg.env, _convert_="object")
        assert made == GymEnv(
            id="my_pkg.MyEnv", num_envs=3, kwargs={"size": 5}, reward_threshold=made.reward_threshold
        )

    def test_without_it_nothing_changes(self):
        for overrides in ((), ("env=minatar",)):
            cfg = configuration(*overrides)
            before = to_plain_config(cfg)
            apply_env_target(cfg, [])
            assert to_plain_config(cfg) == before


def test_a_network_of_ones_own_is_a_part_like_any_other():
    overrides = ("agent/network=custom", "agent.network.target=my_pkg.Net", "+agent.network.kwargs.size=5")
    run = instantiate(configuration(*overrides), _convert_="object")
    assert run.agent.network == Custom(target="my_pkg.Net", kwargs={"size": 5})


def test_a_default_part_is_a_fresh_object():
    assert DQNConfig().loss is not DQNConfig().loss
    assert (DQNConfig().network, DQNConfig().optimizer) == (Auto(), Adam())
