"""Who is looking at the studio: each open page has a session of its own, and what it holds goes with it."""

import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from coral_jax.canvas import Canvas
from coral_jax.sitter import Sitter
from coral_jax.studio.uploads import Upload, end

IDLE = 180.0  # seconds without a word, after which a page is gone; pages in the background may be silent for a minute
MOST = 32  # open pages; of more, the one that was silent longest is closed


@dataclass
class Session:
    """One open page.  `sitter` and `canvases`, by size, are of its present face; `folder` is for its photographs."""

    token: str
    folder: Path
    seen: float
    face: object = None
    sitter: Sitter | None = None
    canvases: dict[str, Canvas] = field(default_factory=dict)
    upload: Upload | None = None
    closed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)  # of `upload` and `closed`

    def sit(self, face: object, make: Callable[[], Sitter]) -> Sitter:
        """Who the page's face is; what was kept of the face before is let go."""
        if face != self.face or self.sitter is None:
            self.face, self.sitter, self.canvases = None, None, {}
            self.face, self.sitter = face, make()
        return self.sitter

    def take(self, begin: Callable[[], Upload]) -> Upload:
        """Begin to invert a photograph of the page.

        ValueError while another one is inverted, and for a page that was closed meanwhile: nobody would end it.
        """
        with self.lock:
            if self.closed:
                raise ValueError("this page was closed; load it again")
            if self.upload is not None and self.upload.process.poll() is None:
                raise ValueError("one photograph of this page is being inverted; wait for it")
            self.upload = begin()
            return self.upload


class Sessions:
    """The open pages by token.  Tokens are random: none can be guessed, and so no page sees what another one holds."""

    def __init__(self, folder: Path):
        """folder: where photographs of open pages lie, a folder for each."""
        self._folder = folder
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def open(self) -> Session:
        """A new page."""
        token = secrets.token_urlsafe(24)
        session = Session(token, self._folder / token, time.monotonic())
        with self._lock:
            self._open[token] = session
            spare = sorted(self._open.values(), key=lambda other: other.seen)[: max(0, len(self._open) - MOST)]
        for other in spare:
            self.close(other.token)
        return session

    def get(self, token: str | None) -> Session | None:
        """The page of a token, which has just been heard of; None for an unknown one."""
        session = self._open.get(token or "")
        if session is not None:
            session.seen = time.monotonic()
        return session

    def close(self, token: str) -> None:
        """Forget a page, its canvases and its photographs."""
        with self._lock:
            session = self._open.pop(token, None)
        if session is not None:
            with session.lock:
                session.closed = True
                if session.upload is not None:
                    end(session.upload)
            session.sitter = None
            session.canvases.clear()
            shutil.rmtree(session.folder, ignore_errors=True)

    def close_all(self) -> None:
        """Forget every page."""
        for token in list(self._open):
            self.close(token)

    def close_idle(self) -> None:
        """Forget the pages that have been silent for `IDLE` seconds."""
        limit = time.monotonic() - IDLE
        for session in list(self._open.values()):
            if session.seen < limit:
                self.close(session.token)
