"""Several trainings of a method on a prompt, which differ in their seed, as one row of the table."""

from typing import NamedTuple

from coral_jax import weights
from coral_jax.evaluation.judge import RESAMPLES
from coral_jax.evaluation.plan import Cell
from coral_jax.metrics import Resampled, estimate


class Training(NamedTuple):
    """A cell that was trained and measured, and its evaluation.json."""

    cell: Cell
    record: dict


def pooled(trainings: list[Training]) -> list[dict]:
    """One record a method and prompt, as evaluation.json has them: `metrics` over its trainings, and how many these are.

    A row's folder is that of its first seed, so that a row without it is left out.
    """
    groups = {}
    for training in trainings:
        groups.setdefault((training.cell.row, training.cell.prompt), []).append(training)
    return [_pooled(*key, own) for key, own in groups.items() if own[0].cell.method == own[0].cell.row]


def each(trainings: list[Training]) -> list[dict]:
    """The records of trainings, one by one, with `method` as the table's rows have it and the `seed` of each."""
    return [
        {"method": cell.row, "prompt": cell.prompt, "seed": cell.settings["seed"], "metrics": record["metrics"]}
        for cell, record in trainings
    ]


def _pooled(method: str, prompt: str, trainings: list[Training]) -> dict:
    about = {"method": method, "prompt": prompt, "trainings": len(trainings)}
    if len(trainings) == 1:
        return about | {"metrics": trainings[0].record["metrics"]}
    measured = [_resampled(training) for training in trainings]
    shared = [name for name in measured[0] if all(name in own for own in measured)]
    return about | {"metrics": {name: estimate([own[name] for own in measured])._asdict() for name in shared}}


def _resampled(training: Training) -> dict[str, Resampled]:
    """What a training measured, on resampled faces, too."""
    drawn, _ = weights.load_tensors(training.cell.folder / RESAMPLES)
    return {name: Resampled(cell["value"], drawn.get(name)) for name, cell in training.record["metrics"].items()}
