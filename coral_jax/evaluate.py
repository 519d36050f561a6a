"""Compare methods on prompts: python -m coral_jax.evaluate --methods=segment_global --prompts=happy --out=runs/compared"""

import sys
from pathlib import Path
from typing import NamedTuple

from absl import flags

from coral_jax import commands
from coral_jax.domains import load_domain
from coral_jax.evaluation import Judge, evaluate, plan
from coral_jax.features import embedder
from coral_jax.methods import METHODS
from coral_jax.outputs import versions
from coral_jax.report import write_report, write_sheets
from coral_jax.tables import markdown, rows_of, write_tables


class Suite(NamedTuple):
    """Methods and prompts of a table."""

    methods: list[str]
    prompts: list[str]


TABLE_1 = ["happy", "surprised", "blue eyes", "mohawk hairstyle"]
MULTI_FACETED = ["curly hair and lipstick", "makeup and afro hairstyle"]  # figure 7
SUITES = {"table1": Suite(list(METHODS), TABLE_1 + MULTI_FACETED)}

_METHODS = flags.DEFINE_list("methods", None, 'Methods, or methods with fields: "attention_mapper:lambda_area=0;tau=0.5".')
_PROMPTS = flags.DEFINE_list("prompts", None, 'Prompts, such as happy,"blue eyes".')
_SUITE = flags.DEFINE_enum("suite", None, list(SUITES), "Methods and prompts of a table, where the two flags do not say.")
_DOMAIN = flags.DEFINE_string("domain", "toons", "Domain to edit in.")
_WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Folder of domains other than the embedded ones.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 200, "Faces to measure each edit on.")
_REFERENCE = flags.DEFINE_string("reference", None, "Pictures to compare edited faces with: a folder, or tfds:NAME@SPLIT.")
_INCEPTION = flags.DEFINE_string("inception", None, "Weights for FID (default: inception.safetensors in the weights folder).")
_OUT = flags.DEFINE_string("out", "runs/evaluation", "Folder of the runs, the table and the sheets.")
_REPORT = flags.DEFINE_bool("report", False, "Write report.html; alone with --out, of what is there.")


def main() -> None:
    """Train and measure what is not finished; write the tables, the sheets and, if asked for, the report."""
    out = Path(_OUT.value)
    if _REPORT.value and not (_METHODS.value or _PROMPTS.value or _SUITE.value):
        print(f"{write_report(out)} shows the evaluation", file=sys.stderr)
        return
    suite = SUITES.get(_SUITE.value, Suite(list(METHODS), []))
    prompts = _PROMPTS.value or suite.prompts
    if not prompts:
        raise ValueError(f"no prompts; give --prompts=happy,surprised or --suite={', '.join(SUITES)}")
    domain = load_domain(_DOMAIN.value, _WEIGHTS_DIR.value)
    judge = Judge(domain, embedder(domain, _INCEPTION.value, _WEIGHTS_DIR.value), _NUM_IMAGES.value, _REFERENCE.value)
    cells = plan(_METHODS.value or suite.methods, prompts, domain, _WEIGHTS_DIR.value, out)
    about = {"domain": domain.name, "domain_fingerprint": domain.fingerprint, "num_images": _NUM_IMAGES.value,
             "reference": _REFERENCE.value, "versions": versions()}  # fmt: skip
    records, failed = evaluate(cells, judge, lambda done: write_tables(out, done, about))
    if records:
        write_sheets(out, records, f"{domain.name}, edits by method")
        print(markdown(rows_of(records)))
    if records and _REPORT.value:
        write_report(out)
    print(f"{out / 'table.md'} holds the table, {out / 'sheets'} the sheets", file=sys.stderr)
    if failed:
        raise ValueError(f"{len(failed)} of {len(cells)} cells failed: {'; '.join(failed)}")


if __name__ == "__main__":
    commands.run(main)
