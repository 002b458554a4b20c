"""Environments in processes of their own: the same results, and no process that outlives its run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.rng import seed_for
from dqn_runner.core.types import StepResult
from dqn_runner.envs.base import EnvPart
from dqn_runner.envs.subprocess_worker import EnvDiedError, ProcessWorker, launch, relauncher
from dqn_runner.envs.vector_env import VectorEnv
from dqn_runner.envs.worker import EnvWorker, LocalWorker
from tests.conftest import BUDGET, Outcome, records
from tests.support.fragile import Fragile, part


def batch(part: EnvPart, workers: list[EnvWorker] | None = None, seed: int = 0, limit: int = 15) -> VectorEnv:
    return VectorEnv(
        workers or [launch(part) for _ in range(part.num_envs)],
        lambda index, episode: seed_for(seed, "env", index, episode),
        limit,
        relauncher(part),
    )


def transcript(envs: VectorEnv, steps: int, seed: int = 0) -> list[list[Any]]:
    """All that `steps` random steps show."""
    rng = np.random.default_rng(seed)
    shown = [[envs.obs.tolist()]]
    for _ in range(steps):
        result: StepResult = envs.step(rng.integers(2, size=len(envs.envs)).tolist())
        shown.append([np.asarray(column).tolist() for column in result])
    return shown


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z"


def wait_until(condition: Callable[[], bool]) -> bool:
    for _ in range(600):
        if condition():
            return True
        time.sleep(0.05)
    return False


def run_script(text: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """A user's script, as a process."""
    (directory / "script.py").write_text(text)
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "script.py"]
    return subprocess.run(command, cwd=directory, env=variables, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def workers() -> Iterator[list[EnvWorker]]:
    """Two processes that the tests share; an VectorEnv resets what it is given."""
    made = [launch(part()) for _ in range(2)]
    yield made
    for worker in made:
        worker.close()


class TestTheSameResults:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 2**32), steps=st.integers(1, 40), limit=st.integers(1, 20))
    def test_as_in_this_process(self, workers: list[EnvWorker], seed: int, steps: int, limit: int):
        here = batch(part("sync"), seed=seed, limit=limit)
        there = batch(part(), workers, seed=seed, limit=limit)
        assert transcript(there, steps, seed) == transcript(here, steps, seed)
        assert str(there.state_dict()) == str(here.state_dict())

    def test_going_on_from_a_state(self, workers: list[EnvWorker]):
        here = batch(part("sync"))
        transcript(here, 23)
        there = batch(part(), workers, seed=0)
        there.load_state_dict(here.state_dict())
        assert transcript(there, 20, 1) == transcript(here, 20, 1)

    def test_all_environments_step_at_once(self, workers: list[EnvWorker]):
        for worker in workers:
            worker.play(0, [])()
        waiting = [worker.step(1, 0, False) for worker in workers]
        assert all(worker._poll.poll(30_000) for worker in workers)  # type: ignore[attr-defined]
        assert len({str(wait()) for wait in waiting}) == 1

    def test_answers_that_nobody_waited_for_are_dropped(self, workers: list[EnvWorker]):
        worker = workers[0]
        expected = worker.play(7, [1])().tolist()
        worker.step(0, 1, False)
        worker.play(3, [])
        assert worker.play(7, [1])().tolist() == expected

    @pytest.mark.slow
    def test_of_a_whole_run_that_is_gone_on_with(self, program: Callable[..., Outcome], tmp_path: Path):
        command = (*BUDGET, "env.num_envs=2", "logging=[jsonl]")
        assert program(*command, "hydra.run.dir=here").status == 0
        there = (*command, "hydra.run.dir=there", "env.vectorization=async")
        for steps in (700, 1200):
            done = program(*there, f"trainer.max_steps={steps}")
            assert done.status == 0, done.err
        assert records(tmp_path / "there") == records(tmp_path / "here")


class TestErrors:
    def test_come_back_as_they_are_with_their_traceback(self, tmp_path: Path):
        asks = tmp_path / "asks"
        envs = batch(part(num_envs=1, asks=str(asks), always=True))
        asks.write_text("raise")
        with pytest.raises(RuntimeError, match="the sensor is lost") as caught:
            envs.envs[0].step(0, 0, False)()
        assert 'raise RuntimeError("the sensor is lost")' in str(caught.value.__cause__)
        asks.write_text("raise what cannot be sent")
        with pytest.raises(RuntimeError, match="NoPickleError: the sensor is lost"):
            envs.envs[0].step(0, 0, False)()
        envs.close()

    @pytest.mark.parametrize(
        ("what", "where"),
        [("raise", "reset"), ("be killed", "step"), ("be killed", "reset"), ("leave a child", "step")],
    )
    def test_an_environment_is_made_again_once(self, what: str, where: str, tmp_path: Path):
        asks = tmp_path / "asks"
        envs = batch(part(asks=str(asks), where=where))
        undisturbed = batch(part("sync"))
        assert transcript(envs, 8) == transcript(undisturbed, 8)
        asks.write_text(what)
        assert transcript(envs, 30, 1) == transcript(undisturbed, 30, 1)
        assert not asks.exists()
        if what == "leave a child":
            os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)  # nobody waited for its end
        envs.close()

    @pytest.mark.parametrize(
        ("what", "how"), [("be killed", "was killed by SIGKILL"), ("exit", "exited with 3")]
    )
    def test_one_that_dies_again_ends_the_run(self, what: str, how: str, tmp_path: Path):
        asks = tmp_path / "asks"
        envs = batch(part(num_envs=1, asks=str(asks), always=True))
        asks.write_text(what)
        with pytest.raises(EnvDiedError, match=rf"the process \d+ of an environment {how}"):
            envs.step([0])
        envs.close()

    def test_settings_that_are_wrong_are_answered_as_in_this_process(self):
        with pytest.raises(UserError, match=r"does not take env\.kwargs"):
            batch(part(num_envs=1, size=3))

    def test_what_cannot_be_sent_is_named(self):
        with pytest.raises(UserError, match=r"env\.vectorization=async cannot hand .* to a process"):
            launch(part(asks=lambda: None))


class TestNoProcessStaysBehind:
    @pytest.fixture
    def _patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However busy the machine is."""
        monkeypatch.setattr("dqn_runner.env_process.PATIENCE", 1000)

    @pytest.mark.usefixtures("_patient")
    def test_after_closing(self):
        worker = ProcessWorker(part())
        worker.play(0, [])()
        process = worker._process
        worker.step(0, 0, False)
        worker.close()
        assert process.exitcode == 0
        worker.close()

    def test_after_closing_one_that_hangs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("dqn_runner.env_process.PATIENCE", 0.01)
        asks = tmp_path / "asks"
        worker = ProcessWorker(part(asks=str(asks)))
        worker.play(0, [])()
        asks.write_text("hang")
        worker.step(0, 0, False)
        assert wait_until((tmp_path / "hanging").exists)
        worker.close()
        assert worker._process.exitcode == -signal.SIGKILL

    @pytest.mark.usefixtures("_patient")
    def test_after_one_that_nobody_closed(self):
        worker = ProcessWorker(part())
        worker.play(0, [])()
        process = worker._process
        del worker
        assert process.exitcode == 0

    def test_signals_to_all_processes_are_for_the_one_that_trains(self, workers: list[EnvWorker]):
        for worker in workers:
            worker.play(0, [])()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
                os.kill(worker._process.pid, number)  # type: ignore[attr-defined]
            worker.step(0, 0, False)()

    @pytest.mark.parametrize("end", ["kill", "exit", "error"])
    def test_when_the_run_ends_in_whatever_way(self, end: str, tmp_path: Path):
        script = f"""
import os, signal, sys
from tests.support.fragile import part
from dqn_runner import env_process
from dqn_runner.env_process import launch

if __name__ == "__main__":
    env_process.PATIENCE = 0.01
    open("asks", "w").write("hang")
    made = [launch(part(asks="asks")), launch(part())]
    for worker in made:
        worker.play(0, [])()
    waiting = made[0].step(0, 0, False)
    while not os.path.exists("hanging"):
        pass
    print(*(worker._process.pid for worker in made), flush=True)
    if {end!r} == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if {end!r} == "error":
        raise RuntimeError
"""
        done = run_script(script, tmp_path)
        assert done.returncode == {"kill": -signal.SIGKILL, "exit": 0, "error": 1}[end], done.stderr
        pids = [int(word) for word in done.stdout.split()]
        assert len(pids) == 2
        assert wait_until(lambda: all(gone(pid) for pid in pids))

    def test_a_script_without_a_main_block_is_told(self, tmp_path: Path):
        script = """
from tests.support.fragile import part
from dqn_runner.env_process import launch

launch(part()).play(0, [])
"""
        done = run_script(script, tmp_path)
        assert done.stderr.splitlines()[-1].endswith("below `if __name__ == '__main__':`"), done.stderr


def test_environments_that_a_user_made_are_not_made_again() -> None:
    from dqn_runner.envs.user_env import UserEnv

    assert relauncher(UserEnv(env=Fragile())) is None
    assert isinstance(launch(part("sync")), LocalWorker)
