"""Environments in separate processes give the same results, and no process outlives its run."""

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

from dqn_runner.core.exceptions import RunFailedError, UserError
from dqn_runner.core.rng import seed_for
from dqn_runner.envs import subprocess_worker
from dqn_runner.envs.base import EnvPart
from dqn_runner.envs.make_workers import make_worker, worker_factory
from dqn_runner.envs.subprocess_worker import EnvProcessError, EnvTimeoutError, SubprocessWorker
from dqn_runner.envs.user_env import UserEnv
from dqn_runner.envs.vector_env import VectorEnv
from dqn_runner.envs.worker import EnvWorker, LocalWorker
from tests.conftest import BUDGET, Outcome, records
from tests.support.fragile import Fragile, fragile_part
from tests.support.stepped import stepped


def vector_env(
    part: EnvPart, workers: list[EnvWorker] | None = None, seed: int = 0, limit: int = 15
) -> VectorEnv:
    return VectorEnv(
        workers or [make_worker(part) for _ in range(part.num_envs)],
        lambda index, episode: seed_for(seed, "env", index, episode),
        limit,
        worker_factory(part),
    )


def transcript(envs: VectorEnv, steps: int, seed: int = 0) -> list[list[Any]]:
    """The observations before and the results of `steps` random steps."""
    rng = np.random.default_rng(seed)
    results = [[envs.obs.tolist()]]
    for _ in range(steps):
        result = stepped(envs, rng.integers(2, size=envs.num_envs).tolist())
        results.append([np.asarray(column).tolist() for column in result])
    return results


def has_ended(pid: int) -> bool:
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
    """Run a user's script in a new process."""
    (directory / "script.py").write_text(text)
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "script.py"]
    return subprocess.run(command, cwd=directory, env=variables, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def workers() -> Iterator[list[EnvWorker]]:
    """Two processes that the tests share; a VectorEnv resets the workers it is given."""
    made = [make_worker(fragile_part()) for _ in range(2)]
    yield made
    for worker in made:
        worker.close()


class TestSameResults:
    @settings(max_examples=25)
    @given(seed=st.integers(0, 2**32), steps=st.integers(1, 40), limit=st.integers(1, 20))
    def test_subprocess_envs_give_the_results_of_local_envs(
        self, workers: list[EnvWorker], seed: int, steps: int, limit: int
    ):
        local = vector_env(fragile_part("sync"), seed=seed, limit=limit)
        remote = vector_env(fragile_part(), workers, seed=seed, limit=limit)
        assert transcript(remote, steps, seed) == transcript(local, steps, seed)
        assert str(remote.state_dict()) == str(local.state_dict())

    def test_subprocess_envs_load_the_state_of_local_envs(self, workers: list[EnvWorker]):
        local = vector_env(fragile_part("sync"))
        transcript(local, 23)
        remote = vector_env(fragile_part(), workers, seed=0)
        remote.load_state_dict(local.state_dict())
        assert transcript(remote, 20, 1) == transcript(local, 20, 1)

    def test_subprocess_envs_step_in_parallel(self, workers: list[EnvWorker]):
        for worker in workers:
            worker.replay_episode(0, [], None, {})()
        waiting = [worker.step(1, 0, False) for worker in workers]
        assert all(worker._reader._poll.poll(30_000) for worker in workers)  # type: ignore[attr-defined]
        assert len({str(wait()) for wait in waiting}) == 1

    def test_responses_that_were_not_waited_for_are_dropped(self, workers: list[EnvWorker]):
        worker = workers[0]
        expected = worker.replay_episode(7, [1], None, {})().obs.tolist()
        worker.step(0, 1, False)
        worker.replay_episode(3, [], None, {})
        assert worker.replay_episode(7, [1], None, {})().obs.tolist() == expected

    @pytest.mark.slow
    def test_resumed_run_with_subprocess_envs_equals_a_run_with_local_envs(
        self, program: Callable[..., Outcome], tmp_path: Path
    ):
        command = (*BUDGET, "env.num_envs=2", "logging=[jsonl]")
        assert program(*command, "hydra.run.dir=local").status == 0
        remote = (*command, "hydra.run.dir=remote", "env.vectorization=async")
        for steps in (700, 1200):
            done = program(*remote, f"trainer.max_steps={steps}")
            assert done.status == 0, done.err
        assert records(tmp_path / "remote") == records(tmp_path / "local")


class TestErrors:
    def test_errors_of_the_env_are_raised_with_their_traceback(self, tmp_path: Path):
        command = tmp_path / "command"
        envs = vector_env(fragile_part(num_envs=1, command_file=str(command), always=True))
        command.write_text("raise")
        with pytest.raises(RuntimeError, match="the sensor is lost") as caught:
            envs.workers[0].step(0, 0, False)()
        assert 'raise RuntimeError("the sensor is lost")' in str(caught.value.__cause__)
        command.write_text("raise an unpicklable error")
        with pytest.raises(RuntimeError, match="NoPickleError: the sensor is lost"):
            envs.workers[0].step(0, 0, False)()
        envs.close()

    @pytest.mark.parametrize(
        ("failure", "where"),
        [
            ("raise", "reset"),
            ("kill itself", "step"),
            ("exit and leave a child", "step"),
            *(
                pytest.param(failure, where, marks=pytest.mark.nightly)
                for failure, where in (
                    ("kill itself", "reset"),
                    ("call sys.exit", "step"),
                    ("start a process", "step"),
                )
            ),
        ],
    )
    def test_env_that_fails_once_is_recovered(self, failure: str, where: str, tmp_path: Path):
        command = tmp_path / "command"
        envs = vector_env(fragile_part(command_file=str(command), where=where))
        undisturbed = vector_env(fragile_part("sync"))
        assert transcript(envs, 8) == transcript(undisturbed, 8)
        command.write_text(failure)
        assert transcript(envs, 30, 1) == transcript(undisturbed, 30, 1)
        assert not command.exists()
        if failure == "exit and leave a child":
            child = int((tmp_path / "child").read_text())  # recovery did not wait for it, but ended it
            assert wait_until(lambda: has_ended(child))
        envs.close()

    @pytest.mark.parametrize(
        ("failure", "message"), [("kill itself", "was killed by SIGKILL"), ("exit", "exited with 3")]
    )
    def test_env_that_fails_twice_raises(self, failure: str, message: str, tmp_path: Path):
        command = tmp_path / "command"
        envs = vector_env(fragile_part(num_envs=1, command_file=str(command), always=True))
        command.write_text(failure)
        with pytest.raises(EnvProcessError, match=rf"the process \d+ of an environment {message}"):
            envs.step([0])
        envs.close()

    def test_process_that_dies_before_its_env_exists_is_reported_without_a_traceback(self):
        worker = SubprocessWorker(fragile_part(num_envs=1, command_file="unused", always=True))
        worker._process.kill()
        with pytest.raises(RunFailedError, match=r"was killed by SIGKILL before its environment was created"):
            _ = worker.spec
        worker.close()

    def test_env_that_hangs_is_killed_and_recovered(self, tmp_path: Path):
        command = tmp_path / "command"
        part = fragile_part(num_envs=1, command_file=str(command), always=True)
        worker = SubprocessWorker(part, timeout=0.5)
        worker.replay_episode(0, [], None, {})()
        command.write_text("hang")
        with pytest.raises(EnvTimeoutError, match=r"within trainer\.env_timeout=0\.5 seconds and was killed"):
            worker.step(0, 0, False)()
        assert worker._process.exitcode == -signal.SIGKILL
        worker.close()

    def test_invalid_env_settings_raise_the_error_of_a_local_env(self):
        with pytest.raises(UserError, match=r"does not accept env\.kwargs"):
            vector_env(fragile_part(num_envs=1, size=3))

    def test_env_part_that_cannot_be_pickled_is_rejected(self):
        with pytest.raises(UserError, match=r"env\.vectorization=async cannot send .* to a process"):
            make_worker(fragile_part(command_file=lambda: None))


class TestEndOfProcesses:
    @pytest.fixture
    def _no_timeout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a busy machine a process may need long to close its environment."""
        monkeypatch.setattr(subprocess_worker, "CLOSE_TIMEOUT", 1000)

    @pytest.mark.usefixtures("_no_timeout")
    def test_close_ends_the_process(self):
        worker = SubprocessWorker(fragile_part())
        worker.replay_episode(0, [], None, {})()
        process = worker._process
        worker.step(0, 0, False)
        worker.close()
        assert process.exitcode == 0
        worker.close()

    def test_close_kills_a_process_that_hangs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(subprocess_worker, "CLOSE_TIMEOUT", 0.01)
        command = tmp_path / "command"
        worker = SubprocessWorker(fragile_part(command_file=str(command)))
        worker.replay_episode(0, [], None, {})()
        command.write_text("hang")
        worker.step(0, 0, False)
        assert wait_until((tmp_path / "hanging").exists)
        worker.close()
        assert worker._process.exitcode == -signal.SIGKILL

    @pytest.mark.usefixtures("_no_timeout")
    def test_garbage_collection_of_a_worker_ends_its_process(self):
        worker = SubprocessWorker(fragile_part())
        worker.replay_episode(0, [], None, {})()
        process = worker._process
        del worker
        assert process.exitcode == 0

    def test_env_processes_ignore_the_signals_that_the_trainer_handles(self, workers: list[EnvWorker]):
        for worker in workers:
            worker.replay_episode(0, [], None, {})()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
                os.kill(worker._process.pid, number)  # type: ignore[attr-defined]
            worker.step(0, 0, False)()

    @pytest.mark.parametrize("end", ["kill", "exit", "error"])
    def test_env_processes_end_with_the_training_process(self, end: str, tmp_path: Path):
        script = f"""
import os, signal, sys
from tests.support.fragile import fragile_part
from dqn_runner.envs import subprocess_worker
from dqn_runner.envs.make_workers import make_worker

if __name__ == "__main__":
    subprocess_worker.CLOSE_TIMEOUT = 0.01
    open("command", "w").write("hang")
    made = [make_worker(fragile_part(command_file="command")), make_worker(fragile_part())]
    for worker in made:
        worker.replay_episode(0, [], None, {{}})()
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
        assert wait_until(lambda: all(has_ended(pid) for pid in pids))

    def test_script_without_a_main_block_gets_an_error_that_says_so(self, tmp_path: Path):
        script = """
from tests.support.fragile import fragile_part
from dqn_runner.envs.make_workers import make_worker

make_worker(fragile_part()).replay_episode(0, [], None, {})
"""
        done = run_script(script, tmp_path)
        assert done.stderr.splitlines()[-1].endswith("below `if __name__ == '__main__':`"), done.stderr


def test_env_objects_of_a_user_are_recreated_as_copies_unless_an_eval_env_was_given() -> None:
    part = UserEnv(env=Fragile())
    make = worker_factory(part)
    assert make is not None
    workers = (make(0), LocalWorker(part.env, 0))
    again, first = (worker.replay_episode(3, [1], None, {})() for worker in workers)
    assert (again.obs.tolist(), again.rewards) == (first.obs.tolist(), first.rewards)
    assert worker_factory(UserEnv(env=Fragile(), eval_env=Fragile())) is None
    assert isinstance(make_worker(fragile_part("sync")), LocalWorker)
