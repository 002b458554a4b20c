"""Pages in a real browser: nothing is loaded, nothing fails, and what can be clicked works.

It needs Chromium and Node.js with `npm install --no-save playwright-core axe-core` (or NODE_PATH). With
REPORT_PICTURES=DIR it also stores a picture of each page in each view.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from dqn_runner.report.comparison_page import comparison_of
from dqn_runner.report.run_page import run_page
from dqn_runner.report.server import ReportServer
from dqn_runner.report.stored_run import read_run
from dqn_runner.report.sweep_page import sweep_page
from tests.report.test_comparison import agents
from tests.report.test_sweep_page import filled
from tests.support.stored_runs import HOSTILE, store_run

SCRIPT = Path(__file__).with_name("browser.cjs")
ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def has_node_modules() -> bool:
    if shutil.which("node") is None:
        return False
    find = "require.resolve('playwright-core'); require.resolve('axe-core')"
    return subprocess.run(["node", "-e", find], cwd=ROOT, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the browser reports of every page."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    if not has_node_modules():
        pytest.skip("Node.js, playwright-core and axe-core are not installed")
    tmp = tmp_path_factory.mktemp("browser")
    run = store_run(tmp / "root" / "run", [10.0, 40.0, 20.0, 60.0, 50.0, 70.0], finished=None)
    (run / "logs").mkdir()
    (run / "logs" / "training.log").write_text("2026-01-01 00:00:00,000 WARNING the disk is slow\n")
    events = [("00", "start", 0), ("05", "saved", 300), ("08", "killed", 400), ("20", "resume", 300)]
    (run / "timeline.jsonl").write_text(
        "".join(
            json.dumps({"time": f"2026-01-01T00:00:{s}+00:00", "event": e, "step": n}) + "\n"
            for s, e, n in events
        )
    )
    hostile = store_run(tmp / "hostile", env__id=HOSTILE, overrides=[HOSTILE], finished=HOSTILE)
    agents(tmp / "agents", dqn=[10.0, 20.0, 30.0], c51=[25.0, 35.0, 60.0])
    pages = {
        "run": run_page(read_run(run)),
        "hostile": run_page(read_run(hostile)),
        "comparison": comparison_of([tmp / "agents"]).html,
        "sweep": sweep_page(filled(), tmp),
    }
    for name, page in pages.items():
        (tmp / f"{name}.html").write_text(page)
    server = ReportServer(tmp / "root", "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    files = {name: (tmp / f"{name}.html").as_uri() for name in pages}
    config = {
        "chromium": CHROMIUM,
        "server": server.url,
        "pages": {**files, "live": f"{server.url}at/run", "list": server.url},
        "records": str(run / "metrics.jsonl"),
        "pictures": os.environ.get("REPORT_PICTURES"),
    }
    try:
        command = ["node", str(SCRIPT), json.dumps(config)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    finally:
        server.shutdown()
        server.close()
        thread.join()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


pytestmark = [pytest.mark.slow, pytest.mark.nightly]


def test_no_request_goes_out_and_nothing_is_reported_on_the_console(found: Any) -> None:
    for name, page in [*found["looks"].items(), *((k, found[k]) for k in ("run", "sweep", "live"))]:
        assert (name, page["requests"], page["errors"]) == (name, [], [])


def test_every_page_has_charts_and_fits_its_window(found: Any) -> None:
    for name, page in found["looks"].items():
        if "without" in name:
            assert page["pictures"] > 0, name
        else:
            assert page["overflow"] <= 0, name
            assert page["charts"] > 0 or name.startswith("list"), name


def test_axe_finds_no_serious_fault(found: Any) -> None:
    assert [(name, page["faults"]) for name, page in found["looks"].items() if page.get("faults")] == []


def test_hovering_shows_values_and_zooming_is_linked(found: Any) -> None:
    run = found["run"]
    assert run["zoomed"] > run["before"]
    assert run["after"] == run["before"]
    assert run["linked"] > 0
    assert run["hidden"] == 1


def test_print_shows_pictures(found: Any) -> None:
    assert found["run"]["printed"] == 7


def test_tables_are_sorted_and_filtered(found: Any) -> None:
    sweep = found["sweep"]
    assert sweep["ascending"] == ["0", "ascending"]
    assert sweep["descending"] == ["1", "descending"]
    assert sweep["filtered"] == [1, "1 of 5"]


def test_a_live_page_follows_the_run(found: Any) -> None:
    assert (found["live"]["before"], found["live"]["after"]) == (False, True)
