"""Search spaces: Optuna samples from what is written, and the samples reach the run unchanged."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import GridSampler, RandomSampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from dqn_runner.cli.main import CONF
from dqn_runner.config.build import build_agent
from dqn_runner.config.overrides import format_value, normalize_value
from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.search_space.space import SearchSpace, search_space
from dqn_runner.training import checks
from tests.conftest import Outcome

NO_CONFIG = OmegaConf.create({})
SEARCHES = sorted((CONF / "search").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def space(*arguments: str, custom: str | None = None, **params: Any) -> SearchSpace:
    return search_space(arguments, params, custom)


def study(seed: int = 0, storage: BaseStorage | None = None) -> optuna.Study:
    return optuna.create_study(
        sampler=RandomSampler(seed=seed), storage=storage, study_name="s", load_if_exists=True
    )


def suggestions(searched: SearchSpace, count: int = 20) -> list[dict[str, Any]]:
    """The values of trials, as Hydra reads their overrides."""
    trials = study()
    return [read(searched.suggest(trials.ask(), NO_CONFIG)) for _ in range(count)]


def read(overrides: list[str]) -> dict[str, Any]:
    parsed = OverridesParser.create().parse_overrides(overrides)
    assert not any(override.is_sweep_override() for override in parsed)
    return {override.get_key_element(): override.value() for override in parsed}


def same(one: Any, other: Any) -> bool:
    """Whether values are equal and have equal types, including those in lists and mappings."""
    return repr(one) == repr(other)


DISTRIBUTIONS = [
    ("1,2", CategoricalDistribution([1, 2])),
    ("dqn,c51", CategoricalDistribution(["dqn", "c51"])),
    ("null,true,1.5", CategoricalDistribution([None, True, 1.5])),
    ("choice(0.98,0.99)", CategoricalDistribution([0.98, 0.99])),
    ("choice([64,64],[256])", CategoricalDistribution(["[64,64]", "[256]"])),
    ("choice({a: 1},{a: 2})", CategoricalDistribution(["{a:1}", "{a:2}"])),
    ("choice('a b','1')", CategoricalDistribution(["a b", "1"])),
    ("shuffle(1,2,3)", CategoricalDistribution([1, 2, 3])),
    ("int(1.5,2.5)", CategoricalDistribution([1, 2])),
    ("str(1,2)", CategoricalDistribution(["1", "2"])),
    ("range(1,6)", IntDistribution(1, 6)),
    ("range(6)", IntDistribution(0, 6)),
    ("range(1,9,2)", IntDistribution(1, 9, step=2)),
    ("range(1,10,2)", IntDistribution(1, 9, step=2)),
    ("range(0,1,0.25)", FloatDistribution(0, 1, step=0.25)),
    ("range(0,1,0.3)", FloatDistribution(0, 0.9, step=0.3)),
    ("float(range(1,4))", FloatDistribution(1, 4, step=1)),
    ("tag(log,range(1,64))", IntDistribution(1, 64, log=True)),
    ("shuffle(range(1,4))", CategoricalDistribution([1, 2, 3])),
    ("interval(1,8)", FloatDistribution(1, 8)),
    ("int(interval(1,8))", IntDistribution(1, 8)),
    ("tag(log,interval(1e-5,1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
    ("tag(log,int(interval(1,8)))", IntDistribution(1, 8, log=True)),
    ("int(tag(log,interval(1,8)))", IntDistribution(1, 8, log=True)),
    ("interval(2,2)", FloatDistribution(2, 2)),
]
"""As in hydra-optuna-sweeper, except for lists, and for the `log` of a range, which it ignores."""

EXPLICIT = [
    ({"type": "float", "low": "1e-5", "high": 1, "log": True}, FloatDistribution(1e-5, 1, log=True)),
    ({"type": "float", "low": 0, "high": 1, "step": 0.5}, FloatDistribution(0, 1, step=0.5)),
    ({"type": "float", "low": 0, "high": 1}, FloatDistribution(0, 1)),
    ({"type": "int", "low": 1, "high": 8.0}, IntDistribution(1, 8)),
    ({"type": "int", "low": 1, "high": 8, "step": 3}, IntDistribution(1, 7, step=3)),
    ({"type": "int", "low": 1, "high": 8, "log": True}, IntDistribution(1, 8, log=True)),
    ({"type": "categorical", "choices": [1, "a", None]}, CategoricalDistribution([1, "a", None])),
    ({"type": "categorical", "choices": [[64], [32, 32]]}, CategoricalDistribution(["[64]", "[32,32]"])),
]


class TestDistributions:
    @pytest.mark.parametrize(("text", "distribution"), DISTRIBUTIONS)
    def test_distribution_of_a_text_on_the_command_line(self, text: str, distribution: Any):
        (parameter,) = space(f"x={text}").parameters
        assert (parameter.name, parameter.distribution) == ("x", distribution)

    @pytest.mark.parametrize(("text", "distribution"), DISTRIBUTIONS)
    def test_distribution_of_a_text_in_yaml(self, text: str, distribution: Any):
        for written in (text, {"space": text}):
            (parameter,) = space(x=written).parameters
            assert parameter.distribution == distribution

    @pytest.mark.parametrize(("fields", "distribution"), EXPLICIT)
    def test_distribution_of_a_mapping_in_yaml(self, fields: dict[str, Any], distribution: Any):
        (parameter,) = space(x=fields).parameters
        assert parameter.distribution == distribution

    @pytest.mark.parametrize("key", ["agent/loss", "+x", "++x.y", "a@b"])
    def test_parameter_name_is_the_key_with_its_plus_signs(self, key: str):
        (parameter,) = space(f"{key}=1,2").parameters
        assert parameter.name == key
        assert set(itertools.chain(*suggestions(space(f"{key}=1,2")))) == {key}


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.from_regex(r"\A[a-z][a-z0-9_ ]{0,5}[a-z]\Z"), inner, max_size=3)
    ),
    max_leaves=6,
)


class TestSampledValues:
    @settings(max_examples=150)
    @given(VALUES)
    def test_hydra_reads_the_text_of_any_value_as_that_value(self, value: Any):
        (override,) = OverridesParser.create().parse_overrides([f"x={format_value(value)}"])
        assert same(override.value(), value)

    @pytest.mark.parametrize(
        "word",
        [
            "null",
            "True",
            "inf",
            "NaN",
            "1",
            "1e-3",
            "a,b",
            "choice(1)",
            "",
            " ",
            "~",
            "[1]",
            "${x}",
            "it's",
            "\\",
        ],
    )
    def test_string_that_looks_like_another_type_remains_a_string(self, word: str):
        (override,) = OverridesParser.create().parse_overrides([f"x={format_value(word)}"])
        assert override.value() == word

    @settings(max_examples=60)
    @given(VALUES)
    def test_suggested_choice_equals_the_written_value(self, value: Any):
        searched = space(f"x={format_value(value)},{format_value('another one')}")
        (parameter,) = searched.parameters
        assert isinstance(parameter.distribution, CategoricalDistribution)
        drawn = [
            searched.suggest(optuna.trial.FixedTrial({"x": choice}), NO_CONFIG)  # pyright: ignore
            for choice in parameter.distribution.choices
        ]
        assert same([read(overrides)["x"] for overrides in drawn], [value, "another one"])

    @settings(max_examples=60)
    @given(st.floats(1e-12, 1e12), st.floats(1, 1e6), st.booleans(), st.integers(0, 99))
    @example(1.0, 1.0000000000000002, False, 0)  # Optuna draws a number of numpy here
    def test_sampled_number_reaches_the_run_to_the_last_bit(
        self, low: float, factor: float, log: bool, seed: int
    ):
        interval = f"interval({low!r},{low * factor!r})"
        trial = study(seed).ask()
        overrides = space(f"x=tag(log,{interval})" if log else f"x={interval}").suggest(trial, NO_CONFIG)
        assert same(read(overrides)["x"], float(trial.params["x"]))

    @pytest.mark.parametrize("number", [np.float64(0.1), np.float32(0.5), np.int64(3), np.uint8(7)])
    def test_numbers_of_numpy_are_written_as_those_of_python(self, number: Any):
        """Optuna draws one between neighbouring floats, and a sampler of a user may always."""
        assert same(read([f"x={format_value(number)}"])["x"], number.item())
        trial = optuna.trial.FixedTrial({"x": number})
        drawn = space(f"x=interval({number},{number + 1})").suggest(trial, NO_CONFIG)  # pyright: ignore
        assert read(drawn)["x"] == number

    def test_range_samples_its_steps_and_both_ends(self):
        drawn = {values["x"] for values in suggestions(space("x=range(1,8,3)"), 60)}
        assert drawn == {1, 4, 7}

    @pytest.mark.parametrize("text", ["range(0,0.7,0.1)", "range(6,9,0.3)", "range(1e-5,9e-5,1e-5)"])
    def test_steps_of_floats_are_written_as_decimal_numbers(self, text: str):
        (parameter,) = space(f"x={text}").parameters
        expected = {format_value(value) for value in parameter.values() or ()}
        drawn = {space(f"x={text}").suggest(study(seed).ask(), NO_CONFIG)[0] for seed in range(60)}
        assert {override.removeprefix("x=") for override in drawn} == expected
        assert max(map(len, expected)) <= len("1.1e-05")

    @pytest.mark.parametrize(
        ("written", "read_as"),
        [
            ("c51", "c51"),
            ("[64, 64]", [64, 64]),
            ("null", None),
            ("1e-3", 1e-3),
            ("a, b", "a, b"),
            ("~", "~"),
        ],
    )
    def test_strings_of_yaml_and_python_are_read_as_on_the_command_line(self, written: str, read_as: Any):
        assert same(read([f"x={normalize_value(written)}"])["x"], read_as)

    def test_mapping_with_a_key_that_hydra_cannot_read_is_rejected(self):
        with pytest.raises(UserError, match="cannot be written as the value of an override"):
            format_value({"1": 2})


class TestRepeatedSuggestions:
    SPACE = (
        "agent=dqn,c51",
        "agent.learning_rate=tag(log,interval(1e-5,1e-2))",
        "agent.n_step=range(1,5)",
        "agent.tau=range(0,1,0.1)",
        "agent.network.hidden=choice([64],[64,64],[256,256])",
        "env.id='a b',null,'1',1",
    )
    PARAMS = {"agent.loss.num_atoms": {"space": "choice(21,51)", "when": {"agent": "c51"}}}  # noqa: RUF012

    def test_trial_queued_in_another_study_gets_the_same_overrides(self, tmp_path: Path):
        storages = [JournalStorage(JournalFileBackend(str(tmp_path / "journal"))) for _ in range(2)]
        searched = search_space(self.SPACE, self.PARAMS, None)
        before, after = study(1, storages[0]), study(2, storages[1])
        for _ in range(8):
            trial = before.ask()
            overrides = searched.suggest(trial, NO_CONFIG)
            after.enqueue_trial(trial.params)
            assert searched.suggest(after.ask(), NO_CONFIG) == overrides

    def test_trial_loaded_from_the_storage_gets_the_same_overrides(self, tmp_path: Path):
        storages = [JournalStorage(JournalFileBackend(str(tmp_path / "journal"))) for _ in range(2)]
        searched = search_space(self.SPACE, self.PARAMS, None)
        trial = study(1, storages[0]).ask()
        overrides = searched.suggest(trial, NO_CONFIG)
        again = optuna.Trial(study(2, storages[1]), trial._trial_id)
        assert searched.suggest(again, NO_CONFIG) == overrides


class TestConditions:
    PARAMS = {  # noqa: RUF012
        "agent": "choice(dqn,c51,rainbow,iqn)",
        "agent.loss.num_atoms": {"space": "choice(21,51)", "when": {"agent": ["c51", "rainbow"]}},
        "agent.loss.v_max": {"space": 100, "when": {"agent.loss.num_atoms": 51}},
        "agent.loss.kappa": {"type": "float", "low": 0.5, "high": 2, "when": {"agent": "iqn"}},
    }

    def test_parameter_is_suggested_exactly_if_its_conditions_hold(self):
        seen: set[str] = set()
        for values in suggestions(search_space([], self.PARAMS, None), 60):
            assert ("agent.loss.num_atoms" in values) == (values["agent"] in ("c51", "rainbow"))
            assert ("agent.loss.v_max" in values) == (values.get("agent.loss.num_atoms") == 51)
            assert ("agent.loss.kappa" in values) == (values["agent"] == "iqn")
            seen |= set(values)
        assert seen == set(self.PARAMS)

    def test_fixed_setting_of_the_command_decides_conditions(self):
        fixed = search_space(["agent=c51"], self.PARAMS, None)
        assert [p.name for p in fixed.parameters] == ["agent.loss.num_atoms", "agent.loss.v_max"]
        assert fixed.parameters[0].when == {}
        assert fixed.fixed == ("agent=c51",)

    def test_parameters_without_a_possible_value_of_their_condition_are_dropped(self):
        narrowed = search_space(["agent=dqn,rainbow"], self.PARAMS, None)
        assert [p.name for p in narrowed.parameters] == ["agent", "agent.loss.num_atoms", "agent.loss.v_max"]
        assert narrowed.parameters[1].when == {"agent": ("rainbow",)}

    def test_parameter_with_several_conditions_needs_all_of_them(self):
        when = {"a": [1, 2], "b": "x"}
        searched = search_space([], {"a": "1,2,3", "+b": "x,y", "c": {"space": "5,6", "when": when}}, None)
        for values in suggestions(searched, 40):
            assert ("c" in values) == (values["a"] in (1, 2) and values["+b"] == "x")

    def test_condition_can_be_on_a_range_and_on_a_list(self):
        params = {
            "n": "range(1,3)",
            "hidden": "choice([64],[64,64])",
            "a": {"space": "1,2", "when": {"n": 2}},
            "b": {"space": "1,2", "when": {"hidden": [[64]]}},
        }
        for values in suggestions(search_space([], params, None), 40):
            assert ("a" in values) == (values["n"] == 2)
            assert ("b" in values) == (values["hidden"] == [64])

    def test_condition_on_steps_of_floats_holds_for_the_decimal_numbers(self):
        params = {"a": "range(0,0.7,0.1)", "b": {"space": "1,2", "when": {"a": [0.3, 0.6, 0.7]}}}
        drawn = suggestions(search_space([], params, None), 60)
        assert {values["a"] for values in drawn} > {0.3, 0.6, 0.7}
        assert {values["a"] for values in drawn if "b" in values} == {0.3, 0.6, 0.7}

    @pytest.mark.parametrize(("given", "when"), [("c=1.0", 1), ("c=1", 1.0), ("c=1e1", 10)])
    def test_condition_compares_numbers_as_numbers(self, given: str, when: float):
        params = {"x": {"space": "1,2", "when": {"c": when}}}
        assert [p.name for p in search_space([given], params, None).parameters] == ["x"]
        searched = search_space([f"{given},5"], params, None)
        for values in suggestions(searched):
            assert ("x" in values) == (values["c"] == when)


class TestPrecedence:
    def test_command_line_replaces_parameters_of_yaml(self):
        params = {"agent": {"gamma": "choice(0.9,0.99)", "n_step": "1,3"}, "agent.tau": "choice(0.5,1.0)"}
        searched = search_space(["agent.gamma=interval(0.9,1)", "agent.n_step=2"], params, None)
        distributions = {p.name: p.distribution for p in searched.parameters}
        assert distributions == {
            "agent.gamma": FloatDistribution(0.9, 1),
            "agent.tau": CategoricalDistribution([0.5, 1.0]),
        }
        assert searched.fixed == ("agent.n_step=2",)

    def test_command_line_replaces_parameters_of_yaml_with_a_plus_sign(self):
        assert search_space(["+x=3", "y=1,2"], {"x": "1,2"}, None).fixed == ("+x=3",)

    def test_last_of_equal_keys_in_yaml_is_used(self):
        params = {"agent.gamma": "0.9,0.99", "agent": {"gamma": 0.5}, "x": "1,2"}
        assert search_space([], params, None).fixed == ("agent.gamma=0.5",)

    def test_yaml_can_be_nested_and_have_fixed_values(self):
        params = OmegaConf.create(
            {
                "agent": {"gamma": "choice(0.9,0.99)", "loss": {"kappa": 2.0}, "network.hidden": [64, "a b"]},
                "n": None,
            }
        )
        searched = search_space(["seed=3", "~env.kwargs"], params, None)  # pyright: ignore
        assert [p.name for p in searched.parameters] == ["agent.gamma"]
        assert searched.fixed == (
            "agent.loss.kappa=2.0",
            "agent.network.hidden=[64,'a b']",
            "n=null",
            "seed=3",
            "~env.kwargs",
        )

    def test_search_is_not_passed_to_jobs(self):
        assert search_space(["search=dqn", "x=1,2", "mode=train"], {}, None).fixed == ("mode=train",)


class TestGrid:
    def test_grid_has_every_combination_with_both_ends_of_ranges(self):
        searched = space("a=range(1,5,2)", "b=x,y", "c=range(0,0.3,0.1)")
        trials = optuna.create_study(sampler=GridSampler(searched.grid()))
        drawn = [tuple(read(searched.suggest(trials.ask(), NO_CONFIG)).values()) for _ in range(24)]
        assert set(drawn) == set(itertools.product((1, 3, 5), "xy", (0.0, 0.1, 0.2, 0.3)))
        assert len(set(drawn)) == 24

    @pytest.mark.parametrize(
        ("searched", "answer"),
        [
            (space("x=1,2", "y=interval(0,1)"), "y is continuous"),
            (space(x="1,2", y={"space": "1,2", "when": {"x": 1}}), "y depends on x"),
            (space("x=1,2", custom="os.getcwd"), "custom_search_space=os.getcwd"),
        ],
    )
    def test_parameter_that_cannot_be_in_a_grid_is_named(self, searched: SearchSpace, answer: str):
        with pytest.raises(UserError, match=answer):
            searched.grid()


class TestDefinition:
    PARAMS = {"a": "1,2", "b": {"space": "interval(0,1)", "when": {"a": 1}}}  # noqa: RUF012

    def test_definition_is_json_and_independent_of_the_order_of_keys(self):
        made = search_space(["c=range(3)"], self.PARAMS, None).definition()
        assert json.loads(json.dumps(made)) == made
        other = {"c": "range(3)", **self.PARAMS}
        assert search_space([], other, None).definition() == made

    @pytest.mark.parametrize(
        "other",
        [
            {"a": "1,2"},
            {"a": "1,3", "b": {"space": "interval(0,1)", "when": {"a": 1}}},
            {"a": "1,2", "b": {"space": "interval(0,2)", "when": {"a": 1}}},
            {"a": "1,2", "b": {"space": "interval(0,1)", "when": {"a": 2}}},
            {"a": "1,2", "b": "interval(0,1)"},
        ],
    )
    def test_different_spaces_have_different_definitions(self, other: dict[str, Any]):
        assert search_space([], other, None).definition() != search_space([], self.PARAMS, None).definition()


CUSTOM = '''
def suggest(cfg, trial):
    """A constraint that YAML cannot express: the second layer is not wider than the first."""
    first = trial.suggest_int("first", 1, cfg.widest)
    trial.suggest_int("second", 1, first)
    trial.suggest_categorical("hidden", ["[64,64]", "null", "a b"])


def of_one_argument(trial):
    pass


def raises(cfg, trial):
    raise RuntimeError("it broke")


def wrong_bounds(cfg, trial):
    trial.suggest_float("x", 1, 0)


def nothing(cfg, trial):
    pass


def breaks(cfg, trial):
    trial.suggest_int("seed", 0, 3)
'''


class TestCustomFunction:
    @pytest.fixture(autouse=True)
    def _module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        (tmp_path / "my_space.py").write_text(CUSTOM)
        monkeypatch.syspath_prepend(tmp_path)

    def test_suggestions_of_a_custom_function_become_overrides(self):
        searched = space("x=1,2", custom="my_space.suggest")
        trials, seen = study(), []
        for _ in range(30):
            values = read(searched.suggest(trials.ask(), OmegaConf.create({"widest": 5})))
            assert list(values) == ["x", "first", "hidden", "second"]
            assert values["second"] <= values["first"] <= 5
            seen.append(values["hidden"])
        assert all(value in seen for value in ([64, 64], None, "a b"))

    def test_custom_function_can_be_the_whole_search_space(self):
        assert space(custom="my_space.suggest").parameters == ()

    @pytest.mark.parametrize(
        ("arguments", "custom", "answer"),
        [
            (["first=3"], "my_space.suggest", "my_space.suggest suggests first, which the command fixes"),
            ([], "my_space.breaks", "hydra.sweeper.seeds"),
        ],
    )
    def test_reserved_or_fixed_key_of_a_custom_function_is_named(
        self, arguments: list[str], custom: str, answer: str
    ):
        with pytest.raises(UserError, match=answer):
            space(*arguments, custom=custom).suggest(study().ask(), OmegaConf.create({"widest": 5}))

    @pytest.mark.parametrize(
        ("custom", "answer"),
        [
            ("my_space.of_one_argument", "raised TypeError: of_one_argument.. takes 1 positional argument"),
            ("my_space.raises", "raised RuntimeError: it broke"),
            ("my_space.wrong_bounds", "raised ValueError: `low <= high`"),
            ("my_space.nothing", "suggests nothing"),
        ],
    )
    def test_mistake_in_a_custom_function_names_the_setting(self, custom: str, answer: str):
        with pytest.raises(UserError, match=f"hydra.sweeper.custom_search_space={custom} {answer}"):
            space(custom=custom).suggest(study().ask(), NO_CONFIG)

    @pytest.mark.parametrize("path", ["no_pkg.suggest", "my_space.no_such", "my_space"])
    def test_custom_function_that_cannot_be_imported_is_named(
        self, path: str, caplog: pytest.LogCaptureFixture
    ):
        with pytest.raises(UserError, match=f"custom_search_space={path} cannot be imported"):
            space("x=1,2", custom=path)
        assert not caplog.records


MISTAKES = [
    (["seed=0,1"], {}, "seed cannot be part of a search space.*hydra.sweeper.seeds"),
    (["agent.seed=0,1"], {}, "hydra.sweeper.seeds"),
    (["hydra.run.dir=a,b"], {}, "hydra.sweeper.seeds"),
    (["study.trial=1,2"], {}, "hydra.sweeper.seeds"),
    (["search=dqn,family"], {}, "search cannot be part"),
    ([], {"hydra": {"run": {"dir": "a"}}}, "hydra.run.dir cannot be part"),
    ([], {"seed": 3}, "seed cannot be part"),
    (["x=1"], {}, "search space is empty.*search=dqn"),
    (["x=interval(5,1)"], {}, "x: `low <= high`"),
    (["x=range(5,1)"], {}, "x: `low <= high`"),
    (["x=tag(log,interval(0,1))"], {}, "x: `low > 0`"),
    (["x=tag(log,int(interval(0.5,8)))"], {}, "x: `low >= 1`"),
    (["x=tag(log,range(1,9,2))"], {}, "x: .*step"),
    (["x=range(1,5,0)"], {}, "x: the step must be positive"),
    (["x=range(1,5,nan)"], {}, "x: the step must be positive and finite, got nan"),
    (["x=range(1,5,inf)"], {}, "x: the step must be positive and finite, got inf"),
    (["x=range(0,1e30)"], {}, "x: a range has at most 1e[+]15 steps"),
    (["x=range(1e-5,1e-2)"], {}, "x: from 1e-05 to 0.01 a step of 1 has the single value 1e-05; .*smaller"),
    (["x=int(interval(1e-5,1e-2))"], {}, "has the single value 0; write x=0"),
    ([], {"x": {"type": "int", "low": 1, "high": 4, "step": 5}}, "a step of 5 has the single value 1"),
    ([], {"x": {"type": "categorical", "choices": 5}}, "x: choices must be a list, got 5"),
    ([], {"x": {"type": "categorical", "choices": "abc"}}, "x: choices must be a list, got 'abc'"),
    ([], {"x": {"type": "categorical", "choices": {"a": 1}}}, "x: choices must be a list"),
    (
        [],
        {"x": {"type": "categorical", "choices": [1], "low": 1}},
        "type categorical does not use low; .*choices",
    ),
    ([], {"x": {"type": "int", "low": 1, "high": 4, "choices": [1]}}, "x: type int does not use choices"),
    (
        [],
        {"x": {"type": "float", "low": 1, "high": 4, "log": "false"}},
        "x: log must be true or false, got 'false'",
    ),
    ([], {"b": "1,2", "x": {"space": "1,2", "when": {"b": []}}}, "x: `when` lists no value of b"),
    ([], {"x": "1,2", "+x": 3}, "x and [+]x are the same setting"),
    (["x=range(5,1,-1)"], {}, "x: the step must be positive"),
    (["x=interval(0,inf)"], {}, "x: the bounds must be finite"),
    ([], {"x": {"type": "int", "low": 0, "high": float("inf")}}, "x: high must be finite, got inf"),
    ([], {"x": {"type": "float", "low": float("nan"), "high": 1}}, "x: low must be finite, got nan"),
    (["x=tag(logg,interval(1,2))"], {}, "x: the tag logg is not supported.* allowed: log"),
    (["x=tag(log,choice(1,2))"], {}, "x: the tag log is not supported.*choice"),
    (["x=choice(1,2,1)"], {}, "x: a study cannot distinguish the choices 1 and 1"),
    (["x=choice(1,true)"], {}, "x: a study cannot distinguish the choices 1 and true"),
    (["x=choice([1],'[1]')"], {}, "cannot distinguish the choices"),
    (["x=glob(*)"], {}, "glob"),
    (["~x=1,2"], {}, "deleted"),
    (["x=1,2", "x=3,4"], {}, "x is given more than once"),
    (["x=1,2", "+x=3"], {}, "x is given more than once"),
    ([], {"x": "choice()"}, "hydra.sweeper.params: 'x=choice.*empty choice"),
    ([], {"x": "choice(1"}, "hydra.sweeper.params: 'x=choice"),
    ([], {"x": {"type": "categorical", "choices": []}}, "x: the list of choices is empty"),
    (
        [],
        {"x": {"type": "flaot", "low": 1, "high": 2}},
        "x: type must be one of categorical, float, int, got 'flaot'",
    ),
    ([], {"x": {"type": "float", "high": 2}}, "x: low must be a number, got None"),
    ([], {"x": {"type": "int", "low": 1.5, "high": 2}}, "x: low must be an integer, got 1.5"),
    ([], {"x": {"space": "1,2", "wen": {"a": 1}}}, "x has no field wen; available: space, when"),
    ([], {"x": {"when": {"a": 1}}}, "x has no `space`"),
    ([], {"x": {"space": "1,2", "when": "a"}}, "x: `when` must be a mapping of settings to values"),
    (
        [],
        {"x": {"space": "1,2", "when": {"a": 1}}},
        "x depends on a, which is neither searched nor fixed.*a=...",
    ),
    ([], {"x": {"space": "1,2", "when": {"a": 1}}, "a": "1,2"}, "x depends on a, which is defined after it"),
    (
        [],
        {"x": {"space": "1,2", "when": {"a": 1}}, "a": {"space": "1,2", "when": {"x": 1}}},
        "depend on each other in a circle: (x -> a -> x|a -> x -> a)",
    ),
    ([], {"x": {"space": "1,2", "when": {"x": 1}}}, "circle: x -> x"),
    (
        [],
        {"a": "dqn,c51", "x": {"space": "1,2", "when": {"a": ["c51", "c52"]}}},
        "a being c52, which it cannot be",
    ),
    (
        [],
        {"a": "interval(0,1)", "x": {"space": "1,2", "when": {"a": 0.5}}},
        "x depends on a, which is continuous",
    ),
]


@pytest.mark.parametrize(("arguments", "params", "answer"), MISTAKES, ids=lambda case: str(case)[:40])
def test_mistake_in_a_search_space_is_named(
    arguments: list[str], params: dict[str, Any], answer: str
) -> None:
    with pytest.raises(UserError, match=answer):
        search_space(arguments, params, None)


def composed(*overrides: str, hydra: bool = False) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=hydra)


class TestSearchFiles:
    def test_search_file_with_settings_of_jobs_is_rejected(
        self, program: Callable[..., Outcome], tmp_path: Path
    ):
        file = tmp_path / "mine" / "search" / "own.yaml"
        file.parent.mkdir(parents=True)
        text = SEARCHES[0].read_text()
        file.write_text(f"{text}\ntrainer:\n  max_steps: 2000\n")
        answer = program("--config-dir=mine", "search=own").error
        assert answer.startswith("search=own sets trainer.max_steps, but the jobs do not read that file")

    def test_mistake_in_a_search_space_is_an_error_of_one_line(self, program: Callable[..., Outcome]):
        answer = program("search=dqn", "agent.gamma=interval(1,0.9)").error
        assert answer == "agent.gamma: `low <= high` must hold, but got (low=1.0, high=0.9)."

    @pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
    @pytest.mark.parametrize("recipe", ["lunarlander", "minatar_breakout"])
    def test_search_file_composes_a_sweep_with_any_recipe(self, path: Path, recipe: str):
        for overrides in itertools.permutations((f"search={path.stem}", f"experiment={recipe}")):
            cfg = composed(*overrides, "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=3", hydra=True)
            assert cfg.hydra.mode.name == "MULTIRUN"
            assert cfg.hydra.runtime.choices["hydra/sweeper"] == "optuna"
            assert cfg.hydra.sweeper.n_trials == 3
            assert cfg.trainer == composed(f"experiment={recipe}").trainer
            assert search_space([], cfg.hydra.sweeper.params, None).parameters

    @pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
    def test_every_point_of_a_search_file_is_a_valid_run(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(checks, "available_memory", lambda: 2**40)
        params: Any = OmegaConf.load(path).hydra.sweeper.params
        searched, trials = search_space([], params, None), study()
        seen: set[str] = set()
        for _ in range(8):
            overrides = searched.suggest(trials.ask(), NO_CONFIG)
            run = instantiate(composed(*overrides), _convert_="object")
            spec = build_agent(run.agent, run.env).spec
            checks.check(run.agent, spec, run.trainer, spec)
            seen |= set(read(overrides))
        assert len(seen) > len(searched.parameters) / 2
