"""A pool of generated faces with what the critics see in them, kept in parts on disk (`draw` makes them)."""

import dataclasses
from pathlib import Path

import numpy as np

from coral_jax import weights


@dataclasses.dataclass(frozen=True)
class Pool:
    """N faces: w [N, w_dim], images [N, 256, 256, 3] and labels [N, 256, 256] (critics.PARTS) as bytes, and scores.

    `hair` [N, 128, 128] is the parser's probability of hair, times 255; `expression` [N, 7], `age` and `male` [N] are
    face-api's.
    """

    w: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    hair: np.ndarray
    expression: np.ndarray
    age: np.ndarray
    male: np.ndarray

    def __len__(self) -> int:
        return len(self.w)

    def rows(self, rows: np.ndarray | slice) -> "Pool":
        """Some of the faces."""
        return Pool(**{name: values[rows] for name, values in vars(self).items()})


def joined(pools: list[Pool]) -> Pool:
    """All faces of several pools."""
    return Pool(**{f.name: np.concatenate([getattr(p, f.name) for p in pools]) for f in dataclasses.fields(Pool)})


def load(folder: Path, name: str) -> Pool:
    """The parts of a pool that are on disk; ValueError if there are none."""
    files = sorted((Path(folder) / "pool").glob(f"{name}_[0-9]*.safetensors"))
    if not files:
        raise ValueError(f"{folder} has no pool {name!r}; draw it with python -m coral_jax.faces.draw --name={name}")
    return joined([Pool(**weights.load_tensors(file)[0]) for file in files])
