"""A progress line with rate and time left."""

import sys
import time
from typing import Self, TextIO


class Progress:
    """One line with rate and time left: redrawn in place on a terminal, else a new line every ten seconds."""

    def __init__(self, label: str, start: int, total: int, stream: TextIO | None = None):
        """`start` of `total` steps are done already."""
        self._label, self._total, self._stream = label, total, stream or sys.stderr
        self._live = self._stream.isatty()
        self._begun = self._shown = time.monotonic()
        self._first = start
        self._width = 0
        self._open = False  # a line of a terminal that the next one would continue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the line, so that what is printed next, such as an error, begins a new one."""
        if self._open:
            print(file=self._stream, flush=True)

    def show(self, step: int, values: dict[str, float]) -> None:
        """`step` steps are done; `values` are shown behind."""
        now = time.monotonic()
        if not self._live and now - self._shown < 10 and step < self._total:
            return
        self._shown = now
        rate = (step - self._first) / max(now - self._begun, 1e-9)
        left = (self._total - step) / rate if rate else 0.0
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        line = f"{self._label}  {self._done(step, rate)}  {clock(left)} left  {numbers}"
        if self._live:
            self._open = step < self._total
            print("\r" + line.ljust(self._width), end="" if self._open else "\n", file=self._stream, flush=True)
            self._width = len(line)
        else:
            print(line, file=self._stream, flush=True)

    def _done(self, step: int, rate: float) -> str:
        speed = f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / max(rate, 1e-9):.1f} s/step"
        return f"step {step}/{self._total}  {speed}"


class ByteProgress(Progress):
    """The same line for bytes: steps are bytes."""

    def _done(self, step: int, rate: float) -> str:
        unit, name = (1e6, "MB") if self._total >= 1e6 else (1e3, "kB")
        return f"{step / unit:.1f}/{self._total / unit:.1f} {name}  {rate / 1e6:.1f} MB/s"


def clock(seconds: float) -> str:
    """Seconds as 4:05 or 2:04:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
