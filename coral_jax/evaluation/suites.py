"""Comparing methods on prompts, from their names to the table, the sheets and the report in one folder."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coral_jax.artifact import load_edit
from coral_jax.domains import load_domain, note_unknown_words
from coral_jax.evaluation.features import embedder
from coral_jax.evaluation.judge import Judge
from coral_jax.evaluation.plan import Cell, plan
from coral_jax.evaluation.sheets import write_sheets
from coral_jax.evaluation.tables import rows_of, write_tables
from coral_jax.evaluation.trainings import Training, each, pooled
from coral_jax.methods import ABLATIONS, METHODS
from coral_jax.runtime.errors import NonFiniteError
from coral_jax.runtime.numerics import pinned
from coral_jax.runtime.progress import clock
from coral_jax.runtime.versions import versions
from coral_jax.training.loop import train


class Suite(NamedTuple):
    """Methods and prompts of a table."""

    methods: list[str]
    prompts: list[str]


TABLE_1 = ["happy", "surprised", "blue eyes", "mohawk hairstyle"]
MULTI_FACETED = ["curly hair and lipstick", "makeup and afro hairstyle"]  # figure 7
# What the paper argues for, taken away: by a method of its own, or by a field of the config; segmenters as in figure 6 E, F.
ABLATED = ["attention_mapper", *ABLATIONS, "attention_mapper:lambda_area=0", "attention_mapper:lambda_tv=0",
           "segment_global:segmenter=parts", "segment_global:segmenter=mixture"]  # fmt: skip
SUITES = {
    "table1": Suite(list(METHODS), TABLE_1 + MULTI_FACETED),
    "ablations": Suite(ABLATED, [*TABLE_1, "lipstick"]),
}


@pinned()
def compare(
    out: Path,
    methods: list[str],
    prompts: list[str],
    domain_name: str = "toons",
    *,
    num_images: int = 200,
    training_seeds: int = 1,
    weights_dir: str | None = None,
    reference: str | None = None,
    inception: str | None = None,
    report: bool = False,
) -> list[dict]:
    """Train and measure what is not finished in `out`; write the tables, the sheets and, if asked for, the report.

    Every method learns every prompt `training_seeds` times, with the seeds 0, 1, ...; sheets and report show seed 0.
    Returns the rows of the table.  ValueError for mistakes and for missing libraries of the report, before anything is
    trained, and at the end for cells whose training failed.
    """
    write_report = report_writer() if report else None
    domain = load_domain(domain_name, weights_dir)
    judge = Judge(domain, embedder(domain, inception, weights_dir), num_images, reference, keep_resamples=training_seeds > 1)
    cells = plan(methods, prompts, domain, weights_dir, out, training_seeds)
    note_unknown_words(domain, prompts)
    about = {"domain": domain.name, "domain_fingerprint": domain.fingerprint, "num_images": num_images,
             "training_seeds": training_seeds, "reference": reference, "versions": versions()}  # fmt: skip

    def tabulate(done: list[Training]) -> None:
        write_tables(out, pooled(done), about, each(done) if training_seeds > 1 else [])

    done, failed = evaluate(cells, judge, tabulate)
    records = pooled(done)
    if records:
        write_sheets(out, records, domain.name)
        print(f"{out / 'table.md'} holds the table, {out / 'sheets'} the sheets", file=sys.stderr)
    if records and write_report is not None:
        print(f"{write_report(out)} shows them", file=sys.stderr)
    if failed:
        raise ValueError(f"{len(failed)} of {len(cells)} cells failed: {'; '.join(failed)}")
    return rows_of(records)


def evaluate(cells: list[Cell], judge: Judge, tabulate: Callable[[list[Training]], None]) -> tuple[list[Training], list[str]]:
    """Train and measure every cell that is not finished; `tabulate` gets the trainings so far, after each cell.

    Returns all trainings, and a line for each cell whose training ended in values that are not finite: others go on.
    """
    records = [judge.read(cell) for cell in cells]
    left = [index for index, record in enumerate(records) if record is None]
    failed = []

    def done() -> list[Training]:
        return [Training(*one) for one in zip(cells, records, strict=True) if one[1] is not None]

    if done():
        tabulate(done())
    for number, index in enumerate(left):
        cell = cells[index]
        _announce(cell, [cells[other] for other in left[number:]], len(cells), done())
        try:
            train(cell.config, cell.folder)
        except NonFiniteError as error:
            failed.append(f"{cell.method}, {cell.prompt}: {error}")
            print(f"failed: {failed[-1]}", file=sys.stderr)
            continue
        records[index] = judge.measure(cell, load_edit(cell.folder, cell.config.weights_dir))
        tabulate(done())
    return done(), failed


def report_writer() -> Callable[[Path], Path]:
    """`report.write_report`; ValueError where the libraries that it needs are not installed: all else works without."""
    try:
        from coral_jax.evaluation.report import write_report
    except ModuleNotFoundError as error:
        raise ValueError('the report needs matplotlib and Jinja2: pip install -e ".[report]"') from error
    return write_report


def _announce(cell: Cell, left: list[Cell], total: int, done: list[Training]) -> None:
    """What is next and how long all that is left will take, by the time that cells of the same methods took."""
    known = {}
    for training in done:
        known.setdefault(training.cell.row, []).append(training.record["seconds"])
    rough = [seconds for times in known.values() for seconds in times]
    expected = sum(float(np.mean(known.get(other.row, rough))) for other in left) if rough else None
    time_left = "" if expected is None else f", about {clock(expected)} left"
    print(f"[{total - len(left) + 1}/{total}{time_left}] {cell.method}, {cell.prompt}", file=sys.stderr, flush=True)
