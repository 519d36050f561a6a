"""Who is looking at the studio: each open page has a session of its own, and what it holds goes with it."""

import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from coral_jax.canvas import Canvas

IDLE = 180.0  # seconds without a word, after which a page is gone; pages in the background may be silent for a minute
MOST = 32  # open pages; of more, the one that was silent longest is closed


@dataclass
class Session:
    """One open page.  `canvases` are those of its present face, by size; `folder` is for its photographs."""

    token: str
    folder: Path
    seen: float
    face: tuple | None = None
    canvases: dict[str, Canvas] = field(default_factory=dict)

    def canvases_of(self, face: tuple) -> dict[str, Canvas]:
        """The canvases of a face; those of the face before are let go."""
        if face != self.face:
            self.face, self.canvases = face, {}
        return self.canvases


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
            session.canvases.clear()
            shutil.rmtree(session.folder, ignore_errors=True)

    def close_idle(self) -> None:
        """Forget the pages that have been silent for `IDLE` seconds."""
        limit = time.monotonic() - IDLE
        for session in list(self._open.values()):
            if session.seen < limit:
                self.close(session.token)
