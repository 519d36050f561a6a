"""Mistakes on the command lines: one line that says what to type instead, exit status 1, nothing overwritten."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from conftest import REPOSITORY

from coral_jax import commands, edit, train
from coral_jax.training.logs import MetricsLog, read_metrics
from coral_jax.training.workdir import claim

pytestmark = [
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),  # by which ml_collections reads config files
]
CONFIG = "--config=configs/surprised.py:domain=tiny"


@pytest.fixture
def fails(weights_dir, monkeypatch, capsys):
    """Run a command's main as its command line would, expect it to fail, and give its one line."""

    def run(module, *arguments):
        monkeypatch.chdir(REPOSITORY)
        monkeypatch.setenv("CORAL_JAX_WEIGHTS", str(weights_dir))
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as caught:
            flags.FLAGS.unparse_flags()
            commands.run(module.main)
        lines = capsys.readouterr().err.strip().splitlines()
        assert caught.value.code == 1 and len(lines) == 1 and lines[0].startswith("error: "), lines
        return lines[0]

    return run


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([CONFIG, "--config.lamda_area=1"], "no field 'lamda_area'; did you mean 'lambda_area'?"),
        ([CONFIG, "--config.steps=many"], "--config.steps=many: invalid literal for int"),
        ([CONFIG, "--wrkdir=x"], "unknown flag --wrkdir; did you mean 'workdir'?"),
        ([CONFIG, "stray"], "unexpected argument 'stray'; flags are written --name=value"),
        (["--config.steps=3"], "--config.steps without a config file; add --config=configs/surprised.py"),
        ([], "no config; type python -m coral_jax.train --config=configs/surprised.py"),
        (["--config=configs/suprised.py"], "there is no config file configs/suprised.py; did you mean configs/surp"),
        (["--config=configs/surprised.py:methd=x"], "'methd=x' after the config file's name; type FIELD=VALUE"),
        ([CONFIG, "--config.prompt="], "the prompt is empty; say what"),
        ([CONFIG, "--config.prompt=" + "hair " * 20], "shorten it, for example to 'hair"),
        ([CONFIG, "--config.domain=fhq"], "unknown domain 'fhq'; known: "),
        ([CONFIG, "--config.method=segment"], "unknown method 'segment'; choose one of segment_global"),
        ([CONFIG, "--config.tau=1.2"], "tau is 1.2; give a number from 0"),
        ([CONFIG, "--config.sheet_seeds=x"], "seeds 'x' cannot be read"),
        ([CONFIG, "--config.sheet_seeds=4294967296"], "seeds '4294967296' cannot be read"),
        ([CONFIG, "--config.seed=4294967296"], "--config.seed is 4294967296; give a whole number from 0 to 4294967295"),
        ([CONFIG, "--config.seed=-1"], "--config.seed is -1; give a whole number from 0 to 4294967295"),
        ([CONFIG, "--config.weights_dir=~nobody-here/w"], "no home folder is known for ~nobody-here/w; write the path"),
        (["--config=configs"], "there is no config file configs; give one of configs/*.py"),
    ],
)
def test_mistakes_in_training_are_explained_and_leave_nothing(fails, tmp_path, arguments, message):
    assert message in fails(train, *arguments, f"--workdir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_run_is_left_alone(fails, trained):
    before = {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")}
    line = fails(train, CONFIG, "--config.seed=5", f"--workdir={trained.folder}")
    assert "holds a run of another configuration" in line and "seed (0 there, 5 here)" in line
    assert "give another folder with --workdir=DIR, or delete this one" in line
    assert {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")} == before


def test_of_a_run_with_another_method_only_the_method_is_named(fails, trained):
    line = fails(train, CONFIG, "--config.method=styleclip_mapper", f"--workdir={trained.folder}")
    assert "configuration: method ('attention_mapper' there, 'styleclip_mapper' here); give" in line


@pytest.mark.parametrize(
    "config, folder", [("configs/happy.py", "happy"), (CONFIG.removeprefix("--config="), "surprised_tiny")]
)
def test_a_run_is_named_after_its_config_and_a_chosen_domain(monkeypatch, config, folder):
    places = []
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(train, "train", lambda config, workdir: places.append(workdir))
    monkeypatch.setattr(sys, "argv", ["command", f"--config={config}"])
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
        flags.FLAGS.unparse_flags()
        commands.run(train.main)
    assert not ended.value.code
    assert places == [Path("runs") / folder]


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "sheet.png").write_text("mine")
    with pytest.raises(ValueError, match="holds files that no run made"):
        claim(tmp_path, {"seed": 0})
    with pytest.raises(ValueError, match="is a file"):
        claim(tmp_path / "sheet.png", {"seed": 0})
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_a_run_killed_in_its_first_moment_can_start_again(tmp_path):
    (tmp_path / ".config.json.abc.partial").write_text("{")
    claim(tmp_path, {"seed": 0})
    claim(tmp_path, {"seed": 0})
    with pytest.raises(ValueError, match=r"configuration: seed \(0 there, 1 here\), tau \(None there, 0.5 here\)"):
        claim(tmp_path, {"seed": 1, "tau": 0.5})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "no edit; type python -m coral_jax.edit --edit=runs/surprised"),
        (["--edit=nowhere"], "no edit in nowhere; give the folder of a finished training run"),
        (["--edit=RUN", "--alpha=2"], "alpha is '2'; give numbers from -1.5 to 1.5"),
        (["--edit=RUN", "--tau=1.5"], "tau is 1.5; give a number from 0"),
        (["--edit=RUN", "--seeds=5-1"], "seeds '5-1' cannot be read"),
        (["--edit=RUN", "--seeds=0-4294967295"], "seeds '0-4294967295' are more than 1000000 faces; give fewer"),
        (["--edit=RUN", "--latents=NAN"], "holds NaN or infinite values, first in face 0"),
        (["--edit=RUN", "--latents=SHAPE"], "read as w; this domain's generator reads"),
        (["--edit=RUN", "--latents=NAN", "--seeds=1"], "--seeds and --latents both say which faces"),
        (["--edit=RUN", "--weights_dir=."], "unknown domain 'tiny'"),
    ],
)
def test_mistakes_in_editing_are_explained_and_leave_nothing(fails, trained, domain, tmp_path, arguments, message):
    np.save(tmp_path / "nan.npy", np.full((1, domain.generator.w_dim), np.nan))
    np.save(tmp_path / "shape.npy", np.zeros(3))
    names = {"RUN": trained.folder, "NAN": tmp_path / "nan.npy", "SHAPE": tmp_path / "shape.npy"}
    for name, path in names.items():
        arguments = [argument.replace(f"={name}", f"={path}") for argument in arguments]
    assert message in fails(edit, *arguments, f"--out={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_the_edit_command_writes_what_it_says(trained, weights_dir, tmp_path):
    command = [sys.executable, "-m", "coral_jax.edit", f"--edit={trained.folder}", f"--weights_dir={weights_dir}"]
    command += ["--seeds=0,3", "--alpha=-1,1", "--tau=0.3", f"--out={tmp_path}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"2 faces, 2 alpha value(s); {tmp_path / 'sheet.png'} shows them\n"
    assert len(list(tmp_path.glob("seed_*.png"))) == 6


def test_metrics_go_on_after_a_line_cut_short(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss/clip": np.float32(step / 2), "area": np.ones(2, np.float32)})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "loss/cl')
    with MetricsLog(tmp_path, 2) as log:
        log.write(3, {"loss/clip": 9.0})
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows == [
        {"step": 1, "loss/clip": 0.5, "area": [1.0, 1.0]}, {"step": 2, "loss/clip": 1.0, "area": [1.0, 1.0]},
        {"step": 3, "loss/clip": 9.0},
    ]  # fmt: skip
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) >= 1
