"""Records of a run while it goes: metrics.jsonl, TensorBoard events, a progress line."""

import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import TextIO

import numpy as np

from coral_jax.runtime.files import write_bytes


class MetricsLog:
    """Rows of metrics, to metrics.jsonl and to TensorBoard events in the same folder.  Use as a context manager."""

    def __init__(self, folder: str | os.PathLike, start: int):
        """Opens the records of a run that starts after `start` steps: rows of later steps go, they come again."""
        path = Path(folder) / "metrics.jsonl"
        kept = [row for row in read_metrics(path) if row["step"] <= start]
        write_bytes(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  (this class is the context manager)
        self._events = _tensorboardx().SummaryWriter(str(folder), purge_step=start + 1 if start else None)

    def __enter__(self) -> "MetricsLog":
        """Nothing to open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes both records."""
        self._file.close()
        self._events.close()

    def write(self, step: int, row: dict[str, float | np.ndarray]) -> None:
        """Adds a row: numbers, and arrays with one number per layer."""
        plain = {name: np.asarray(value, np.float64).tolist() for name, value in row.items()}
        self._file.write(json.dumps({"step": step} | plain) + "\n")
        self._file.flush()
        for name, value in plain.items():
            if isinstance(value, list):
                for layer, number in enumerate(value, start=1):
                    self._events.add_scalar(f"{name}/layer_{layer:02d}", number, step)
            else:
                self._events.add_scalar(name, value, step)


def read_metrics(path: str | os.PathLike) -> list[dict]:
    """Rows of a metrics.jsonl; a last line that a killed run left half-written is dropped."""
    path = Path(path)
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


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


def _tensorboardx() -> ModuleType:
    """tensorboardX, without the torch that it imports where there is one: seconds, for a type that is never met."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None
    try:
        import tensorboardX
    finally:
        if hidden:
            del sys.modules["torch"]
    return tensorboardX
