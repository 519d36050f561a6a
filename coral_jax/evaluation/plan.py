"""The cells of an evaluation: a method on a prompt each, checked before anything is trained."""

import dataclasses
import itertools
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections

from coral_jax.config import check_apart, make, resolve
from coral_jax.domains import Domain
from coral_jax.methods import get_method
from coral_jax.runtime.files import file_name
from coral_jax.runtime.numerics import key_of
from coral_jax.step import init_state
from coral_jax.training.loop import record_of
from coral_jax.training.workdir import differences


class Cell(NamedTuple):
    """A training of a method on a prompt: its config, what that resolves to, and the folder of its run.

    `method` names the seed where it is not the config's own; `row` is the method of the table's row.
    """

    method: str
    prompt: str
    config: ml_collections.ConfigDict
    settings: dict
    folder: Path
    row: str


def plan(
    methods: list[str],
    prompts: list[str],
    domain: Domain,
    weights_dir: str | None,
    out: Path,
    training_seeds: int = 1,
) -> list[Cell]:
    """The cells of methods x prompts, for each of the seeds 0, 1, ...: all of the first seed come first.

    A method is a name, or one with fields of its config: "NAME:FIELD=VALUE;FIELD=VALUE".  One that draws nothing at random
    has one training.  ValueError, before anything is trained, for what the domain cannot run, for runs of other settings in
    their folders, and for a method that names its seed where there are several.
    """
    if training_seeds < 1:
        raise ValueError(f"training_seeds is {training_seeds}; give at least 1, such as --training_seeds=3")
    cells = []
    for seed, row, prompt in itertools.product(range(training_seeds), dict.fromkeys(methods), dict.fromkeys(prompts)):
        name, _, fields = row.partition(":")
        if training_seeds > 1 and any(field.partition("=")[0] == "seed" for field in fields.split(";")):
            raise ValueError(f"{row} names one seed and --training_seeds={training_seeds} several; leave one of them out")
        if seed and not get_method(name).seeded:
            continue
        method = with_seed(row, seed)
        _, _, fields = method.partition(":")
        config = make(prompt, ",".join([f"method={name}", f"domain={domain.name}", *fields.split(";")]))
        config.weights_dir = weights_dir
        chosen = resolve(config, domain.settings_of(prompt))
        # Fifty rows of the log or more, so that the time to quality is known to a fiftieth of the run.
        config.log_every = max(1, min(config.log_every, chosen.settings.steps // 50))
        frozen = domain.frozen(prompt, config.segmenter)
        jax.eval_shape(init_state, chosen.settings, frozen, key_of(0))
        settings = dataclasses.asdict(chosen.settings) | {"tau": chosen.tau, "seed": config.seed}
        settings |= {"segmenter": config.segmenter, "dtype": config.dtype}
        cells.append(Cell(method, prompt, config, settings, cell_folder(out, method, prompt), row))
    folders = {}
    for cell in cells:
        folders.setdefault(str(cell.folder), []).append(f"{cell.method}, {cell.prompt}")
    check_apart(folders)
    others = {cell.folder: found for cell in cells if (found := differences(cell.folder, record_of(cell.config, domain)))}
    if others:
        folder, found = next(iter(others.items()))
        raise ValueError(
            f"{', '.join(map(str, others))} hold(s) runs of other configurations, {folder} for one: {found}; "
            "delete them, or give another folder with --out=DIR"
        )
    return cells


def with_seed(method: str, seed: int) -> str:
    """The method with a training seed as a field of its config; 0, which is the config's own, is left out."""
    return f"{method}{';' if ':' in method else ':'}seed={seed}" if seed else method


def cell_folder(out: Path, method: str, prompt: str) -> Path:
    """Folder of the run and the measurements of a cell."""
    return out / file_name(method) / file_name(prompt)
