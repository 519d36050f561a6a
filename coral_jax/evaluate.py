"""Compare methods on prompts: python -m coral_jax.evaluate --suite=table1 --report"""

import sys
from pathlib import Path

from absl import flags

from coral_jax import commands
from coral_jax.evaluation.suites import SUITES, Suite, compare, report_writer
from coral_jax.evaluation.tables import markdown
from coral_jax.methods import METHODS

_METHODS = flags.DEFINE_list("methods", None, 'Methods, with fields or without: "attention_mapper:lambda_area=0;tau=0.5".')
_PROMPTS = flags.DEFINE_list("prompts", None, 'Prompts, such as happy,"blue eyes".')
_SUITE = flags.DEFINE_enum("suite", None, list(SUITES), "Methods and prompts of a table, where the two flags do not say.")
_DOMAIN = flags.DEFINE_string("domain", "toons", "Domain to edit in.")
_WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Folder of domains other than the embedded ones.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 200, "Faces to measure each edit on.")
_TRAINING_SEEDS = flags.DEFINE_integer("training_seeds", 1, "Trainings of each cell, with the seeds 0, 1, ...")
_REFERENCE = flags.DEFINE_string("reference", None, "Pictures to compare edited faces with: a folder, or tfds:NAME@SPLIT.")
_INCEPTION = flags.DEFINE_string("inception", None, "Weights for FID (default: inception.safetensors in the weights folder).")
_OUT = flags.DEFINE_string("out", "runs/evaluation", "Folder of the runs, the table and the sheets.")
_REPORT = flags.DEFINE_bool("report", False, "Write report.html; without methods and prompts, of what --out holds.")


def main() -> None:
    """Evaluate --methods on --prompts, or the suite; or only write the report of what is there."""
    out = Path(_OUT.value)
    if _REPORT.value and not (_METHODS.value or _PROMPTS.value or _SUITE.value):
        print(f"{report_writer()(out)} shows the evaluation", file=sys.stderr)
        return
    suite = SUITES.get(_SUITE.value, Suite(list(METHODS), []))
    prompts = _PROMPTS.value or suite.prompts
    if not prompts:
        raise ValueError(f"no prompts; give --prompts=happy,surprised or --suite={next(iter(SUITES))}")
    rows = compare(
        out, _METHODS.value or suite.methods, prompts, _DOMAIN.value,
        num_images=_NUM_IMAGES.value, training_seeds=_TRAINING_SEEDS.value, weights_dir=_WEIGHTS_DIR.value,
        reference=_REFERENCE.value, inception=_INCEPTION.value, report=_REPORT.value,
    )  # fmt: skip
    print(markdown(rows))


if __name__ == "__main__":
    commands.run(main)
