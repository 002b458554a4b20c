"""The same pages during training, on a local server that only reads.

`/` lists all runs below a directory; `/at/PATH` is the page of the run or the sweep at PATH below it. A page
listens to `/at/PATH/events`, and gets itself again when its files have changed.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.log import log
from dqn_runner.report.found_runs import is_sweep, run_directories
from dqn_runner.report.history import Histories
from dqn_runner.report.listing import Listing, newest_change
from dqn_runner.report.pages import render
from dqn_runner.report.run_page import run_page
from dqn_runner.report.stored_run import is_run, read_run

LOOK_EVERY = 1.0
"""Seconds between looks at the files of a page."""
SIGN_EVERY = 15.0
"""Seconds after which a page without news gets a comment, so that a lost connection is noticed."""
COOKIE = "dqn_runner_token"
PAGES, EVENTS = "/at/", "/events"
LISTENERS = 64
"""The most pages that listen at the same time; each keeps a thread."""


class ReportServer(ThreadingHTTPServer):
    """Serves the runs below a directory."""

    daemon_threads = True

    def __init__(self, root: Path, host: str, port: int, token: str | None = None) -> None:
        """Open the port; 0 is any free one.

        A server that other machines can reach asks for a token, which is made up unless given. Raises
        UserError if `root` is not a directory, or if the port cannot be used.
        """
        if not root.is_dir():
            raise UserError(f"{root} is not a directory; give the directory with the runs")
        self.root = root.resolve()
        self.listing = Listing(self.root)
        self.histories = Histories()
        self.list_lock = threading.Lock()
        self.listeners = threading.BoundedSemaphore(LISTENERS)
        self.closing = threading.Event()
        self.is_local = _is_local(host)
        self.token = token if token is not None or self.is_local else secrets.token_urlsafe(24)
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UserError(
                f"cannot serve on {host}, port {port}: {error}; choose another --host or --port"
            ) from error

    @property
    def url(self) -> str:
        """The address to open in a browser, with the token if there is one."""
        host = str(self.server_address[0])
        shown = f"[{host}]" if ":" in host else host
        query = f"?token={quote(self.token)}" if self.token else ""
        return f"http://{shown}:{self.server_address[1]}/{query}"

    def directory_at(self, path: str) -> Path | None:
        """The directory of the run or sweep at a path below the root; None if it leads elsewhere."""
        try:
            directory = (self.root / path).resolve()
            inside = directory == self.root or self.root in directory.parents
            return directory if inside and (is_run(directory) or is_sweep(directory)) else None
        except (OSError, ValueError, RuntimeError):
            return None

    def close(self) -> None:
        """End all connections."""
        self.closing.set()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    server: ReportServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "dqn_runner", ""
    timeout = 60

    _is_known = False
    """Whether the present request has shown the token."""

    def do_GET(self) -> None:
        """Send a page, or events."""
        url = urlsplit(self.path)
        self._is_known = self._has_token(url.query)
        if not self._is_from_here():
            self._send(HTTPStatus.FORBIDDEN, "This server answers only to its own address.\n")
        elif not self._is_known:
            self._send(
                HTTPStatus.FORBIDDEN, "Open the address that the server has printed, with its token.\n"
            )
        elif url.path == "/":
            self._send_page(self._list)
        elif url.path == f"{EVENTS}/":
            self._send_events(self._entries)
        elif url.path.startswith((PAGES, EVENTS + PAGES)):
            self._send_run(url.path)
        else:
            self._send(HTTPStatus.NOT_FOUND, "This page does not exist.\n")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""

    def _send_run(self, path: str) -> None:
        """Answer `/at/RUN` with its page, `/events/at/RUN` with the events of that page."""
        wants_events = path.startswith(EVENTS)
        run = path.removeprefix(EVENTS).removeprefix(PAGES)
        directory = self.server.directory_at(unquote(run).rstrip("/"))
        if directory is None:
            self._send(HTTPStatus.NOT_FOUND, "There is no such run or sweep.\n")
        elif wants_events:
            self._send_events(lambda: newest_change(directory))
        else:
            self._send_page(lambda: _page(directory, self.server.histories))

    def _is_from_here(self) -> bool:
        """Whether the request names this server, and not a domain that leads to it (DNS rebinding)."""
        if not self.server.is_local:
            return True  # protected by the token
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        except ValueError:
            return False
        return host is not None and _is_local(host)

    def _has_token(self, query: str) -> bool:
        wanted = self.server.token
        if wanted is None:
            return True
        given = parse_qs(query).get("token", [])
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        given += [cookie.value] if cookie is not None else []
        return any(hmac.compare_digest(one.encode(), wanted.encode()) for one in given)

    def _entries(self) -> object:
        with self.server.list_lock:
            return self.server.listing.entries()

    def _list(self) -> str:
        with self.server.list_lock:
            entries, sweeps = self.server.listing.entries(), self.server.listing.sweeps()
        return render(
            "list.html.j2",
            charts=[],
            live=True,
            title=f"Runs in {self.server.root.name}",
            entries=entries,
            sweeps=sweeps,
            now=time.time(),
            address=_address,
        )

    def _send_page(self, make: Callable[[], str]) -> None:
        try:
            page = make()
        except (UserError, OSError) as error:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n")
        else:
            self._send(HTTPStatus.OK, page, "text/html")

    def _send(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
        content = text.encode(errors="replace")
        self.send_response(status)
        self._send_headers(kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_headers(self, kind: str) -> None:
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        if self.server.token is not None and self._is_known:  # others must not learn it
            self.send_header("Set-Cookie", f"{COOKIE}={self.server.token}; HttpOnly; SameSite=Strict; Path=/")

    def _send_events(self, look: Callable[[], object]) -> None:
        """Send an event whenever what `look` returns has changed, until the reader is gone."""
        if self.command == "HEAD" or not self.server.listeners.acquire(blocking=False):
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, "Too many pages are open.\n")
            return
        try:
            before, silent = look(), 0.0
            self.send_response(HTTPStatus.OK)
            self._send_headers("text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            while not self.server.closing.wait(LOOK_EVERY):
                now = look()
                silent += LOOK_EVERY
                if now != before:
                    self.wfile.write(b"event: changed\ndata:\n\n")
                    before, silent = now, 0.0
                elif silent >= SIGN_EVERY:
                    self.wfile.write(b": still here\n\n")
                    silent = 0.0
                self.wfile.flush()
        except (ConnectionError, TimeoutError):
            pass  # the page was closed
        finally:
            self.server.listeners.release()


def serve(root: Path, host: str, port: int) -> None:
    """Serve the runs below `root` until Ctrl-C; prints the address."""
    server = ReportServer(root, host, port)
    count = sum(1 for _ in run_directories(server.root))
    print(f"{count} runs below {server.root}: open {server.url} (Ctrl-C ends the server)", flush=True)
    if not server.is_local:
        log.warning(
            "other machines can reach this server without encryption; anyone with the address can read"
        )
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        print("the server has ended")
    finally:
        server.close()


def _page(directory: Path, histories: Histories) -> str:
    """The page of a run or a sweep."""
    if not is_sweep(directory):
        return run_page(read_run(directory, histories.read), live=True)
    from dqn_runner.report.sweep_page import sweep_page  # late: it imports Optuna
    from dqn_runner.sweep.study import read_study

    return sweep_page(read_study(directory), directory, live=True)


def _address(path: str) -> str:
    return PAGES + quote(path)


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
