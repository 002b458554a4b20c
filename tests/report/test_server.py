"""The server shows pages during training; it only reads, and nothing outside of its directory."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from dqn_runner.core.exceptions import UserError
from dqn_runner.io.lock import RunLock
from dqn_runner.report import listing as listing_module
from dqn_runner.report import server as server_module
from dqn_runner.report.listing import Listing
from dqn_runner.report.server import ReportServer
from dqn_runner.run import last_records
from tests.support.stored_runs import HOSTILE, charts_of, store_run, tags_of, text_of


@contextmanager
def serving(root: Path, host: str = "127.0.0.1", token: str | None = None) -> Iterator[ReportServer]:
    server = ReportServer(root, host, 0, token)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.close()
        thread.join()


def get(
    server: ReportServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), answer.headers
    connection.close()
    return found


def test_runs_are_listed_with_state_score_and_overrides(tmp_path: Path) -> None:
    store_run(tmp_path / "a", [10.0, 30.0, 20.0], overrides=["agent=c51"])
    store_run(tmp_path / "group" / "b", [], finished=None)
    lock = RunLock(tmp_path / "group" / "b")
    lock.acquire()
    found = {entry.path: entry for entry in Listing(tmp_path).entries()}
    lock.release()
    entry = found["a"]
    assert (entry.state, entry.env, entry.step, entry.score, entry.best, entry.overrides) == (
        *("finished", "CartPole-v1", 300, 20.0, 30.0),
        "agent=c51",
    )
    assert (found["group/b"].state, found["group/b"].score) == ("running", None)


def test_a_run_that_changed_is_read_again(tmp_path: Path) -> None:
    run = store_run(tmp_path / "a", finished=None)
    listing = Listing(tmp_path)
    assert listing.entries()[0].step == 200
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "step": 900, "episode": 9}) + "\n")
    assert listing.entries()[0].step == 900


def test_a_thousand_runs_are_listed_from_a_few_bytes_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store_run(tmp_path / "0", [float(i) for i in range(2000)])
    read: list[int] = []

    def count(owner: ModuleType, name: str) -> None:
        function = getattr(owner, name)

        def counted(path: Path, size: int) -> bytes:
            content = function(path, size)
            read.append(len(content))
            return content

        monkeypatch.setattr(owner, name, counted)

    count(listing_module, "_head")
    count(last_records, "tail")
    for number in range(1, 1000):
        (tmp_path / str(number)).mkdir()
        for path in first.iterdir():
            (tmp_path / str(number) / path.name).hardlink_to(path)
    assert len(Listing(tmp_path).entries()) == 1000
    assert (first / "metrics.jsonl").stat().st_size > 3 * last_records.TAIL
    assert 0 < sum(read) <= 1000 * (listing_module.HEAD + last_records.TAIL)
    assert len(read) == 2000


def test_pages_are_served_and_follow_the_run(tmp_path: Path) -> None:
    run = store_run(tmp_path / "my run", [10.0], finished=None)
    with serving(tmp_path) as server:
        status, page, headers = get(server, "/")
        assert status == 200
        assert "my run" in text_of(page)
        assert [a["href"] for t, a in tags_of(page) if t == "a"] == ["/", "/at/my%20run"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        status, page, _ = get(server, "/at/my%20run")
        assert len(charts_of(page)["evaluation"]["x"]) == 1
        policy = next(a["content"] or "" for _, a in tags_of(page) if a.get("http-equiv"))
        assert "connect-src 'self'" in policy
        store_run(tmp_path / "other", [10.0, 20.0])
        (run / "metrics.jsonl").write_bytes((tmp_path / "other" / "metrics.jsonl").read_bytes())
        assert len(charts_of(get(server, "/at/my%20run")[1])["evaluation"]["x"]) == 2


def test_a_change_is_an_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LOOK_EVERY", 0.02)
    run = store_run(tmp_path / "a", finished=None)
    with serving(tmp_path) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
        connection.request("GET", "/events/at/a")
        answer = connection.getresponse()
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"kind": "train", "step": 900, "episode": 9}) + "\n")
        assert answer.readline() == b"event: changed\n"
        connection.close()


@pytest.mark.parametrize(
    "path",
    [
        "/at/../secret",
        "/at/%2e%2e/secret",
        "/at/..%2fsecret",
        "/at//etc",
        "/at/%2Fetc",
        "/at/link",
        "/at/nothing",
        "/at/a%00",
        "/at/a/checkpoints",
        "/at/a/run.json",
        "/events/at/../secret",
        "/a",
        "/favicon.ico",
    ],
)
def test_nothing_outside_of_the_directory_and_nothing_but_pages_is_served(tmp_path: Path, path: str) -> None:
    store_run(tmp_path / "secret")
    store_run(tmp_path / "root" / "a")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "secret")
    with serving(tmp_path / "root") as server:
        assert get(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_the_server_only_reads(tmp_path: Path, method: str) -> None:
    with serving(tmp_path) as server:
        assert get(server, "/", method)[0] == 501


def test_a_foreign_name_for_this_machine_is_rejected(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        port = server.server_address[1]
        assert get(server, "/", Host=f"evil.example:{port}")[0] == 403
        assert get(server, "/", Host=f"localhost:{port}")[0] == 200


def test_other_machines_need_the_token(tmp_path: Path) -> None:
    store_run(tmp_path / "a")
    with serving(tmp_path, host="0.0.0.0") as server:
        assert server.token
        assert server.url.endswith(f"/?token={server.token}")
        for path in ("/", "/?token=wrong", "/events/at/a"):
            status, text, headers = get(server, path)
            assert status == 403
            assert "Set-Cookie" not in headers
            assert server.token not in text + str(headers)
        status, _, headers = get(server, f"/?token={server.token}")
        assert status == 200
        assert "HttpOnly" in headers["Set-Cookie"]
        assert get(server, "/at/a", Cookie=headers["Set-Cookie"].partition(";")[0])[0] == 200


def test_a_damaged_run_is_reported_on_its_page_only(tmp_path: Path) -> None:
    run = store_run(tmp_path / "a")
    (run / "run.json").write_text("{")
    with serving(tmp_path) as server:
        status, text, _ = get(server, "/at/a")
        assert status == 503
        assert "run.json is damaged" in text
        assert get(server, "/")[0] == 200


def test_hostile_names_do_not_run_in_the_list(tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "|")[:100]
    store_run(tmp_path / name, overrides=[HOSTILE])
    with serving(tmp_path) as server:
        page = get(server, "/")[1]
    assert [tag for tag, _ in tags_of(page) if tag in ("script", "img")] == ["script", "script"]


def test_what_cannot_be_served_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a directory"):
        ReportServer(tmp_path / "nothing", "127.0.0.1", 0)
    with serving(tmp_path) as server, pytest.raises(UserError, match="choose another --host or --port"):
        ReportServer(tmp_path, "127.0.0.1", server.server_address[1])


def test_a_directory_that_is_itself_a_run_has_a_page_with_events(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run")
    with serving(run) as server:
        assert get(server, "/at/")[0] == 200
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
        connection.request("GET", "/events/at/")
        answer = connection.getresponse()
        assert (answer.status, answer.headers.get_content_type()) == (200, "text/event-stream")
        connection.close()


def test_a_page_changes_when_the_process_of_its_run_dies(tmp_path: Path) -> None:
    store_run(tmp_path / "a", finished=None)
    lock = RunLock(tmp_path / "a")
    lock.acquire()
    running = listing_module.newest_change(tmp_path / "a")
    lock.release()
    assert listing_module.newest_change(tmp_path / "a") != running


def test_a_damaged_host_is_rejected(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert get(server, "/", Host="[")[0] == 403
