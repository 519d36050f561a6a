"""A studio that runs, and a browser that looks at it: for measurements, screenshots and tests."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """Where Chromium is; None where it is not, or where Playwright, which drives it, is not installed."""
    try:
        import playwright.sync_api  # noqa: F401
    except ModuleNotFoundError:
        return None
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextlib.contextmanager
def browser() -> Iterator[object]:
    """Chromium without a window, as Playwright's Browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, as in many containers, Chromium starts without its sandbox only.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        running = playwright.chromium.launch(executable_path=find_browser(), args=arguments)
        try:
            yield running
        finally:
            running.close()


class Served:
    """A studio in a process of its own; use as a context manager."""

    def __init__(self, runs: Path, *flags: str, cache: str | None = None):
        """cache: a folder of compiled programs of its own."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "coral_jax.studio", f"--port={self.port}", f"--runs={runs}", *flags]
        environment = os.environ | ({"JAX_COMPILATION_CACHE_DIR": cache} if cache else {})
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)

    def __enter__(self) -> "Served":
        """Waits until it answers."""
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
                return self
            except (urllib.error.URLError, OSError):
                if self.process.poll() is not None or time.monotonic() > until:
                    self.process.kill()
                    raise RuntimeError(f"the studio did not start: {self.process.stderr.read()}") from None
                time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        """Ends it as Ctrl+C does."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()

    def ask(self, path: str, content: object = None, session: str | None = None, headers: dict | None = None) -> tuple:
        """(status, body) of a request as pages send them; content: an object, or bytes."""
        data = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        sent = {"x-studio-session": session} if session is not None else {}
        request = urllib.request.Request(f"{self.url}/{path}", data, sent | (headers or {}), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def open(self) -> str:
        """A page's token."""
        status, body = self.ask("api/open", session="none")
        assert status == 200, body
        return json.loads(body)["session"]

    @property
    def cpu_seconds(self) -> float:
        """Seconds of processor time that the process has used (Linux)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory(self) -> int:
        """Bytes of memory that the process holds (Linux)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
