"""Comparing methods on prompts, from their names to the table, the sheets and the report in one folder."""

import sys
from pathlib import Path
from typing import NamedTuple

from coral_jax.cells import plan
from coral_jax.domains import load_domain
from coral_jax.evaluation import Judge, evaluate
from coral_jax.features import embedder
from coral_jax.methods import ABLATIONS, METHODS
from coral_jax.outputs import versions
from coral_jax.report import write_report, write_sheets
from coral_jax.tables import rows_of, write_tables


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


def compare(
    out: Path,
    methods: list[str],
    prompts: list[str],
    domain_name: str = "toons",
    *,
    num_images: int = 200,
    weights_dir: str | None = None,
    reference: str | None = None,
    inception: str | None = None,
    report: bool = False,
) -> list[dict]:
    """Train and measure what is not finished in `out`; write the tables, the sheets and, if asked for, the report.

    Returns the rows of the table.  ValueError for mistakes, before anything is trained, and at the end for cells whose
    training failed.
    """
    domain = load_domain(domain_name, weights_dir)
    judge = Judge(domain, embedder(domain, inception, weights_dir), num_images, reference)
    cells = plan(methods, prompts, domain, weights_dir, out)
    about = {"domain": domain.name, "domain_fingerprint": domain.fingerprint, "num_images": num_images,
             "reference": reference, "versions": versions()}  # fmt: skip
    records, failed = evaluate(cells, judge, lambda done: write_tables(out, done, about))
    if records:
        write_sheets(out, records, domain.name)
        print(f"{out / 'table.md'} holds the table, {out / 'sheets'} the sheets", file=sys.stderr)
    if records and report:
        print(f"{write_report(out)} shows them", file=sys.stderr)
    if failed:
        raise ValueError(f"{len(failed)} of {len(cells)} cells failed: {'; '.join(failed)}")
    return rows_of(records)
