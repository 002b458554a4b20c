"""Recorded transitions: what is read is what was recorded, and what does not fit is rejected in one line."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from dqn_runner.core.exceptions import UserError
from dqn_runner.envs.actions import action_space
from dqn_runner.envs.base import spec_of
from dqn_runner.replay.offline.minari_dataset import read_minari
from dqn_runner.replay.offline.npz_file import read_npz
from dqn_runner.replay.offline.recorder import EpisodeRecorder
from dqn_runner.replay.offline.recording import Recording, checked
from dqn_runner.training.evaluator import Evaluator
from tests.support.counter import Counter
from tests.support.probes import compose_run
from tests.support.recordings import arrays, next_observations, record, write_minari

CARTPOLE = ["env=cartpole"]
MASKED = [
    "env=gym",
    "env.id=tests.support.masked:Guarded",
    "env.kwargs={form: key, actions: joint}",
    "env.action_mask=legal",
]
MIXED = ["env=gym", "env.id=tests.support.mixed:Stacked", "env.frame_stack=2"]
KEYS = ["env=gym", "env.id=tests.support.mixed:Keys", "env.kwargs.length=5"]


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(CARTPOLE, tmp_path_factory.mktemp("cartpole") / "recorded.npz")


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(MASKED, tmp_path_factory.mktemp("masked") / "recorded.npz")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(MIXED, tmp_path_factory.mktemp("mixed") / "recorded.npz")


def read(path: Path, env: list[str], n_step: int = 1) -> Recording:
    made = compose_run(env).env.make()
    raw, _ = read_npz(path, "preload")
    return checked(raw, spec_of(made), action_space(made.action_space, "env"), n_step, "preload")


def test_a_file_of_a_run_has_the_steps_of_its_environment(cartpole: Path) -> None:
    """CartPole computes its next state from state and action: every step is checked against it."""
    recording, env = read(cartpole, CARTPOLE), gymnasium.make("CartPole-v1").unwrapped
    assert recording.episodes == 4
    assert len(recording) == len(arrays(cartpole)["actions"]) > 20
    for index in range(len(recording)):
        obs, action, reward, terminated, _, next_obs = recording.step(index)
        env.reset(seed=0)
        env.state = tuple(obs.astype(np.float64))  # pyright: ignore[reportAttributeAccessIssue]
        found, _, over, _, _ = env.step(action)
        assert np.allclose(next_obs, found, atol=1e-5)
        assert (reward, terminated) == (1.0, over)


def test_next_and_final_observations_are_the_same_recording(cartpole: Path, tmp_path: Path) -> None:
    following = next_observations(cartpole)
    np.savez(tmp_path / "next.npz", **arrays(cartpole, final_observations=None, next_observations=following))
    one, two = read(cartpole, CARTPOLE), read(tmp_path / "next.npz", CARTPOLE, n_step=3)
    for index in range(len(one)):
        assert all(np.array_equal(a, b) for a, b in zip(one.step(index), two.step(index), strict=True))


class Lives(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A life is lost in step 2."""

    def step(self, action: Any) -> Any:
        *result, _ = super().step(action)
        return *result, {"life_lost": result[0][0] == 2}


def test_a_lost_life_is_recorded_as_a_termination_within_its_episode(tmp_path: Path) -> None:
    env = Lives(Counter(6))
    recorder = EpisodeRecorder(env)
    Evaluator(env, lambda _: 0, None).run(lambda obs: np.zeros(len(obs), np.int64), 1, witness=recorder)
    recorder.write(tmp_path / "lives.npz", {})
    found = arrays(tmp_path / "lives.npz")
    assert found["terminations"].tolist() == [False, True, False, False, False, True]
    assert found["final_observations"].tolist() == [[2], [6]]
    assert found["observations"].tolist() == [[0], [1], [2], [3], [4], [5]]


def test_a_file_may_end_within_an_episode(cartpole: Path, tmp_path: Path) -> None:
    found = arrays(cartpole)
    found["terminations"][-1] = False
    np.savez(tmp_path / "open.npz", **found)
    recording = read(tmp_path / "open.npz", CARTPOLE)
    assert recording.episodes == 4
    assert recording.step(len(recording) - 1)[3:5] == (False, False)


def test_masks_are_read_with_actions_as_the_environment_takes_them(masked: Path) -> None:
    recording = read(masked, MASKED)
    assert arrays(masked)["actions"].shape == (len(recording), 2)
    assert recording.masks is not None
    assert recording.masks[recording.at, recording.actions].all()
    assert recording.masks[recording.next_at[recording.terminated]].all()
    # the reward is the number of the action over that of all
    assert np.allclose(recording.rewards, recording.actions / 6)


@pytest.mark.parametrize("env", [MIXED, KEYS], ids=["stacked", "categories from one"])
def test_entries_of_a_dict_keep_their_names_and_values(env: list[str], tmp_path: Path) -> None:
    path = record(env, tmp_path / "recorded.npz")
    recording = read(path, env)
    layout = spec_of(compose_run(env).env.make()).layout
    assert layout is not None
    for name, shape in layout.entry_shapes.items():
        assert arrays(path)[f"observations.{name}"].shape == (len(recording), *shape)
    if env is KEYS:
        categories = arrays(path)["observations.category"]
        assert (categories.min(), categories.max()) == (1, 4)
    again = read(path, env)
    assert np.array_equal(recording.observations, again.observations)


@pytest.mark.parametrize("masks", [False, True], ids=["plain", "masks"])
def test_a_dataset_of_minari_is_the_same_recording(
    masks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = ["env=gym", "env.id=tests.support.masked:Guarded", "env.action_mask=info"] if masks else CARTPOLE
    path = record(env, tmp_path / "recorded.npz")
    made = compose_run(env).env.make()
    write_minari(path, "test/random-v0", made, tmp_path)
    raw, digest = read_minari("test/random-v0", "preload", "info" if masks else None)
    ours = read(path, env)
    theirs = checked(raw, spec_of(made), action_space(made.action_space, "env"), 3, "preload")
    assert len(ours) == len(theirs) > 10
    for index in range(len(ours)):
        pairs = zip(ours.step(index), theirs.step(index), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)
    assert digest == read_minari("test/random-v0", "preload", None)[1]
    (tmp_path / "test" / "random-v0" / "data" / "more").write_text("x")
    assert digest != read_minari("test/random-v0", "preload", None)[1]


@pytest.mark.parametrize(
    ("array", "change", "message"),
    [
        ("terminations", lambda values: values[:-2], r"so terminations must be \d+, not \d+$"),
        ("truncations", lambda values: values[:-1], r"so truncations must be \d+, not \d+$"),
        ("actions", lambda values: values[1:], r"so actions must be \d+, not \d+$"),
        ("rewards", lambda values: values[:-2], r"has \d+ rewards, so actions must be \d+, not \d+$"),
        ("observations", lambda values: values[1:], r"so observations must be \d+, not \d+$"),
    ],
)
def test_an_episode_of_a_dataset_with_too_few_values_is_named(
    array: str, change: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import h5py

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    made = compose_run(CARTPOLE).env.make()
    write_minari(record(CARTPOLE, tmp_path / "recorded.npz"), "test/random-v0", made, tmp_path)
    with h5py.File(tmp_path / "test" / "random-v0" / "data" / "main_data.hdf5", "a") as file:
        episode = file["episode_1"]
        values = episode[array][()]
        del episode[array]
        episode[array] = change(values)
    with pytest.raises(UserError, match=rf"^preload: episode 1 .*{message}"):
        read_minari("test/random-v0", "preload", None)


def test_a_missing_dataset_says_how_to_download_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(
        UserError, match=r"dataset a/b-v0 is missing in .*'minari download a/b-v0' downloads it"
    ):
        read_minari("a/b-v0", "preload", None)
    with pytest.raises(UserError, match="the name of a dataset"):
        read_minari("", "preload", None)
    (tmp_path / "a" / "b-v0" / "data").mkdir(parents=True)
    with pytest.raises(UserError, match="the dataset cannot be read"):
        read_minari("a/b-v0", "preload", None)


def test_minari_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    with pytest.raises(UserError, match=r"minari.*pip install 'dqn_runner\[minari\]'"):
        read_minari("a/b-v0", "preload", None)


@pytest.mark.parametrize("name", ["/etc", "a/../../b-v0", ".."])
def test_a_path_in_the_place_of_a_dataset_is_rejected(name: str) -> None:
    with pytest.raises(UserError, match=r"preload: write the name of a dataset, .*, not a path"):
        read_minari(name, "preload", None)


def with_value(array: Any, index: Any, value: Any) -> Any:
    changed = array.copy()
    changed[index] = value
    return changed


BAD: dict[str, tuple[Any, str]] = {
    "not finite at an end": (
        lambda a: {"final_observations": with_value(a["final_observations"], (0, 1), np.nan)},
        r"the observation after step \d+ has nan",
    ),
    "both kinds of following observations": (
        lambda a: {"next_observations": a["observations"]},
        "both next_observations and final_observations; keep one of them",
    ),
    "another shape": (
        lambda a: {
            "observations": a["observations"][:, :3],
            "final_observations": a["final_observations"][:, :3],
        },
        r"observations have shape \(3,\) and dtype float32; those that the agent sees have shape \(4,\)",
    ),
    "not finite": (
        lambda a: {"observations": with_value(a["observations"], (7, 1), np.nan)},
        "observation 7 has nan",
    ),
    "too large": (
        lambda a: {"observations": with_value(a["observations"].astype(np.float64), (7, 1), 1e300)},
        r"observation 7 has 1e\+300",
    ),
    "unknown action": (lambda a: {"actions": a["actions"] + 1}, "have 2 at step .*, which is not an action"),
    "continuous actions": (lambda a: {"actions": a["actions"] + 0.5}, "not an action"),
    "several actions": (lambda a: {"actions": a["actions"][:, None]}, r"shape \(1,\) .* not numbers"),
    "infinite reward": (
        lambda a: {"rewards": with_value(a["rewards"], 3, np.inf)},
        "reward of step 3 is inf",
    ),
    "rewards of another length": (lambda a: {"rewards": a["rewards"][1:]}, "rewards has .* entries, but"),
    "rewards in columns": (lambda a: {"rewards": a["rewards"][:, None]}, "rewards must be .* numbers"),
    "no truth value": (lambda a: {"truncations": a["rewards"] + 2}, "truncations must be .* True or False"),
    "texts": (lambda a: {"truncations": a["rewards"].astype("U3")}, "truncations must be .* True or False"),
    "objects": (lambda a: {"actions": a["actions"].astype(object)}, "actions is an array of Python objects"),
    "no observations": (lambda _: {"observations": None}, "the array observations is missing; it has"),
    "another name": (
        lambda a: {"terminations": None, "terminals": a["terminations"]},
        "the array terminations is missing.*save terminals under the name terminations",
    ),
    "nothing follows": (lambda _: {"final_observations": None}, "neither next_observations"),
    "too few ends": (
        lambda a: {"final_observations": a["final_observations"][1:]},
        "final_observations has 3 entries, not 4, one for each end of an episode",
    ),
    "other ends": (
        lambda a: {"final_observations": a["final_observations"][:, 1:]},
        r"observations has entries of shape \(4,\), final_observations \(3,\)",
    ),
    "a number": (lambda _: {"observations": np.array(3.0)}, "observations is not an array with an entry"),
    "no steps": (lambda a: {key: value[:0] for key, value in a.items() if value.ndim}, "no transitions"),
    "entries": (
        lambda a: {
            "observations": None,
            "observations.x": a["observations"],
            "final_observations": None,
            "final_observations.x": a["final_observations"],
        },
        r"several entries, but the agent sees arrays of shape \(4,\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_recording_that_does_not_fit_is_rejected(case: str, cartpole: Path, tmp_path: Path) -> None:
    change, message = BAD[case]
    np.savez(tmp_path / "bad.npz", **arrays(cartpole, **change(arrays(cartpole))))
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / "bad.npz", CARTPOLE)
    assert "\n" not in str(caught.value)


def test_n_step_returns_need_whole_episodes(cartpole: Path, tmp_path: Path) -> None:
    found = arrays(cartpole, final_observations=None, next_observations=next_observations(cartpole))
    order = np.random.default_rng(0).permutation(len(found["actions"]))
    np.savez(
        tmp_path / "mixed.npz", **{key: value[order] if value.ndim else value for key, value in found.items()}
    )
    assert len(read(tmp_path / "mixed.npz", CARTPOLE)) == len(order)
    with pytest.raises(UserError, match=r"agent\.n_step=3 needs the steps of an episode in their order"):
        read(tmp_path / "mixed.npz", CARTPOLE, n_step=3)


BAD_MASKS: dict[str, tuple[Any, str]] = {
    "none": (lambda _: {"action_masks": None}, "no action_masks, but the environment has action masks"),
    "another length": (
        lambda a: {key: a[key][:, 1:] for key in ("action_masks", "final_action_masks")},
        "a 0 or 1 for each of the 6 actions",
    ),
    "other numbers": (lambda a: {"action_masks": a["action_masks"] * 2}, "a 0 or 1 for each"),
    "nothing allowed": (
        lambda a: {"action_masks": with_value(a["action_masks"], 2, False)},
        "action mask 2 allows no action",
    ),
    "a forbidden action": (
        lambda a: {
            "action_masks": with_value(
                with_value(a["action_masks"], 2, True),
                (2, int(np.ravel_multi_index(tuple(a["actions"][2]), (2, 3)))),
                False,
            )
        },
        "the action of step 2 is not allowed",
    ),
}


@pytest.mark.parametrize("case", BAD_MASKS)
def test_masks_that_do_not_fit_are_rejected(case: str, masked: Path, tmp_path: Path) -> None:
    change, message = BAD_MASKS[case]
    np.savez(tmp_path / "bad.npz", **arrays(masked, **change(arrays(masked))))
    with pytest.raises(UserError, match=message):
        read(tmp_path / "bad.npz", MASKED)


BAD_ENTRIES: dict[str, tuple[Any, str]] = {
    "a missing entry": (
        lambda _: {"observations.screen": None, "final_observations.screen": None},
        r"without the key 'screen'.*screen \(image 6x6 uint8\)",
    ),
    "only at the end": (lambda _: {"final_observations.screen": None}, "have different entries"),
    "a category that does not exist": (
        lambda a: {"observations.pair.0": a["observations.pair.0"] + 9},
        "entry 'pair.0' has .* not one of the categories",
    ),
    "one array": (
        lambda a: {
            **{key: None for key in a if "observations" in key},
            "observations": a["observations.screen"],
            "final_observations": a["final_observations.screen"],
        },
        "that is not a dictionary",
    ),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_entries_that_do_not_fit_are_rejected(case: str, mixed: Path, tmp_path: Path) -> None:
    change, message = BAD_ENTRIES[case]
    np.savez(tmp_path / "bad.npz", **arrays(mixed, **change(arrays(mixed))))
    with pytest.raises(UserError, match=message):
        read(tmp_path / "bad.npz", MIXED)


def test_what_is_no_npz_file_is_rejected(cartpole: Path, tmp_path: Path) -> None:
    whole = cartpole.read_bytes()
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    contents = {
        "empty": b"",
        "text": b"hello",
        "array": buffer.getvalue(),
        "cut": whole[: len(whole) // 2],
        "damaged": whole[:300] + bytes(value ^ 255 for value in whole[300:340]) + whole[340:],
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"^preload: ") as caught:
            read_npz(path, "preload")
        assert "\n" not in str(caught.value)
    for path, problem in ((tmp_path, "is a directory"), (tmp_path / "nothing", "does not exist")):
        with pytest.raises(UserError, match=problem):
            read_npz(path, "preload")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UserError, match="is a pipe"):
            read_npz(tmp_path / "pipe", "preload")


def test_the_provenance_of_a_recording_is_json(cartpole: Path) -> None:
    assert json.loads(str(arrays(cartpole)["provenance"])) == {}
