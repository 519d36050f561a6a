"""Records of a run while it goes: metrics.jsonl and TensorBoard events."""

import json
import os
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter

from coral_jax.runtime.files import write_bytes


class MetricsLog:
    """Rows of metrics, to metrics.jsonl and to TensorBoard events in the same folder.  Use as a context manager."""

    def __init__(self, folder: str | os.PathLike, start: int):
        """Opens the records of a run that starts after `start` steps: rows of later steps go, they come again."""
        path = Path(folder) / "metrics.jsonl"
        kept = [row for row in read_metrics(path) if row["step"] <= start]
        write_bytes(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  (this class is the context manager)
        self._events = SummaryWriter(str(folder), purge_step=start + 1 if start else None)

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
