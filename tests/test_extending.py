"""docs/extending.md: its first two recipes, applied to a copy of the package as they stand, and trained with."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from coral_jax import losses
from coral_jax.config import resolve
from coral_jax.methods import METHODS

RECIPES = {
    title: re.findall(r"```python\n(.*?)```", body, flags=re.DOTALL)
    for title, body in re.findall(
        r"^## (.*?)\n(.*?)(?=^## |\Z)", (REPOSITORY / "docs/extending.md").read_text(), flags=re.DOTALL | re.MULTILINE
    )
}


@pytest.fixture
def package(tmp_path):
    """A copy of the program, to change."""
    for folder in ("coral_jax", "configs"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def put(path, mark, text, *, after=False):
    """Put text before (or after) the only line of a file that holds `mark`."""
    lines = path.read_text().splitlines(keepends=True)
    (place,) = [index for index, line in enumerate(lines) if mark in line]
    lines.insert(place + after, text)
    path.write_text("".join(lines))


def test_a_loss_term_is_one_file_and_one_field_and_a_method_is_one_row(package, weights_dir):
    """One run trains the new method with the new term."""
    term, equation, field = RECIPES["A loss term"]
    losses = package / "coral_jax" / "losses.py"
    put(losses, "# What methods sum", term + "\n")
    losses.write_text(re.sub(r"^EQUATION_7 = .*\n", equation, losses.read_text(), flags=re.MULTILINE))
    put(package / "coral_jax" / "config.py", "    lambda_tv: float", field, after=True)
    region, row = RECIPES["A method"]
    put(package / "coral_jax" / "regions.py", "def threshold(", region + "\n\n")
    methods = package / "coral_jax" / "methods.py"
    put(methods, '("styleclip_optimization", ', row)
    put(methods, "from coral_jax.regions import", "from coral_jax.regions import LayerOpacity\n")

    summary, rows = train(package, weights_dir)
    assert "brightness" in summary["losses"]
    weights = json.loads((package / "run" / "edit" / "edit.json").read_text())["settings"]
    assert (weights["method"], weights["lambda_brightness"]) == ("opacity_global", 7)
    named = {"clip": 1, "l2": weights["lambda_l2"], "identity": weights["lambda_id"], "area": weights["lambda_area"],
             "tv": weights["lambda_tv"], "brightness": 7}  # fmt: skip
    for row in rows:
        assert row["loss/total"] == pytest.approx(sum(weight * row[f"loss/{name}"] for name, weight in named.items()), rel=1e-4)
    assert rows[-1]["loss/brightness"] > 0
    assert len(summary["layers"]) == 5 and all(0 < layer["area"] < 1 for layer in summary["layers"])
    assert rows[-1]["area"] != rows[0]["area"]


def train(package, weights_dir):
    """A run on the tiny domain: its summary and the rows of its log."""
    arguments = "domain=tiny,log_every=1,method=opacity_global,steps=3,tau=0"
    command = [sys.executable, "-m", "coral_jax.train", f"--config=configs/surprised.py:{arguments}"]
    command += [f"--config.weights_dir={weights_dir}", "--config.lambda_brightness=7", "--workdir=run"]
    environment = os.environ | {"PYTHONPATH": str(package)}
    done = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (package / "run" / "metrics.jsonl").read_text().splitlines()]
    return json.loads((package / "run" / "summary.json").read_text()), rows


def test_a_term_without_a_field_is_named(domain, config, monkeypatch):
    term = losses.Term("brightness", lambda edited: None, "lambda_brightness")
    method = METHODS["attention_mapper"]
    monkeypatch.setitem(METHODS, "attention_mapper", dataclasses.replace(method, terms=(*method.terms, term)))
    with pytest.raises(ValueError, match=r"sums \['brightness'\], whose weights are no fields of config.Settings"):
        resolve(config, domain.settings_of(config.prompt))
