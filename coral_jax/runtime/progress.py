"""A progress line with rate and time left."""

import sys
import time
from typing import TextIO


class Progress:
    """One line with rate and time left: redrawn in place on a terminal, else a new line every ten seconds."""

    def __init__(self, label: str, start: int, total: int, stream: TextIO | None = None):
        """`start` of `total` steps are done already."""
        self._label, self._total, self._stream = label, total, stream or sys.stderr
        self._live = self._stream.isatty()
        self._begun = self._shown = time.monotonic()
        self._first = start
        self._width = 0

    def show(self, step: int, values: dict[str, float]) -> None:
        """`step` steps are done; `values` are shown behind."""
        now = time.monotonic()
        if not self._live and now - self._shown < 10 and step < self._total:
            return
        self._shown = now
        rate = (step - self._first) / max(now - self._begun, 1e-9)
        left = (self._total - step) / rate if rate else 0.0
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        speed = f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / max(rate, 1e-9):.1f} s/step"
        line = f"{self._label}  step {step}/{self._total}  {speed}  {clock(left)} left  {numbers}"
        if self._live:
            end = "\n" if step >= self._total else ""
            print("\r" + line.ljust(self._width), end=end, file=self._stream, flush=True)
            self._width = len(line)
        else:
            print(line, file=self._stream, flush=True)


def clock(seconds: float) -> str:
    """Seconds as 4:05 or 2:04:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
