"""What goes wrong around a run: disks, permissions, devices, memory, files cut short; bugs keep their traceback."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys

import jax
import pytest
from absl import flags
from absl.testing import flagsaver
from conftest import REPOSITORY, make_domain, run_config

from coral_jax import commands, edit
from coral_jax.artifact import load_edit
from coral_jax.config import make, resolve
from coral_jax.domains import load_domain
from coral_jax.runtime import files
from coral_jax.runtime.errors import NonFiniteError, line_of
from coral_jax.training.loop import train
from coral_jax.training.workdir import finished


@pytest.fixture
def run(monkeypatch):
    """Run a main as a command line would."""

    def start(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        with flagsaver.flagsaver(), pytest.raises(BaseException) as caught:
            flags.FLAGS.unparse_flags()
            commands.run(main)
        return caught.value

    return start


def fail_with(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    "bug",
    [TypeError("a bug"), KeyError("name"), AttributeError("x"), IndexError("x"), AssertionError("x"), RuntimeError("x"),
     jax.errors.JaxRuntimeError("INVALID_ARGUMENT: x"), ModuleNotFoundError("x"), UnboundLocalError("x")],
    ids=repr,
)  # fmt: skip
def test_bugs_keep_their_traceback(run, capsys, bug):
    assert run(fail_with(bug)) is bug
    assert "error: " not in capsys.readouterr().err


@pytest.mark.parametrize(
    "error, line",
    [
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y: this user may not read or write it; give"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "/x: its file system is read-only; give another path"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/x"), "/x: this is a folder; give a file"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x/y"), "/x/y: a part of this path is a file; give a folder"),
        (FileExistsError(errno.EEXIST, "File exists", "/x"), "/x: this is a file already; give a folder"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), "/x: there is no such file or folder"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/x"), "/x: a part of this path is too long; give a shorter one"),
        (MemoryError(), "out of memory (of this computer); training needs less with --config.microbatch_size=1, "),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."), "lower --config.loss_resolution"),
        (NonFiniteError("the loss"), "the loss"),
        (ValueError("two\nlines"), "two lines"),
    ],
    ids=repr,
)
def test_what_users_can_cause_is_one_line(run, capsys, error, line):
    assert run(fail_with(error)).code == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and line in lines[0]


@pytest.mark.parametrize(
    "error, disk",
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/y"), "the disk of /x/y"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "a disk"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "a disk"),
        (ValueError('RESOURCE_EXHAUSTED: Error writing "x": Failed to write 61 bytes [OS error 28: No space left on device]'),
         "a disk"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_full_disk_is_one_line_whoever_finds_it(run, capsys, monkeypatch, error, disk):
    monkeypatch.setattr(os, "_exit", sys.exit)  # libraries write no more at exit
    assert run(fail_with(error)).code == 1
    assert capsys.readouterr().err.startswith(f"error: {disk} is full, or this user's share of it; free some space")


def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught:
        files.write_bytes(tmp_path / "sheet.png", b"x")
    assert line_of(caught.value).startswith(f"the disk of {tmp_path / 'sheet.png'} is full")
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there_is_one_line(weights_dir, tmp_path):
    command = [sys.executable, "-m", "coral_jax.train", "--config=configs/surprised.py:domain=tiny", f"--workdir={tmp_path}/x"]
    environment = os.environ | {"JAX_PLATFORMS": "nonesuch", "CORAL_JAX_WEIGHTS": str(weights_dir)}
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: jax finds no device of JAX_PLATFORMS=nonesuch (Unable to initialize backend")
    assert "or unset JAX_PLATFORMS to take what there is" in done.stderr and not (tmp_path / "x").exists()


def test_paths_may_be_at_home(run, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for arguments in (["--edit=~/run"], ["--edit", "~/run"], ["-edit=~/run"]):
        assert run(edit.main, *arguments).code == 1
        assert f"error: no edit in {tmp_path / 'run'}; give" in capsys.readouterr().err
    assert run(edit.main, "--edit=a~/run").code == 1
    assert "error: no edit in a~/run; give" in capsys.readouterr().err


def test_an_output_that_knows_no_umlauts_gets_the_rest(run, monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    assert run(lambda: print("glücklich")).code is None
    output.flush()
    assert output.buffer.getvalue() == b"gl\\xfccklich\n"


DESCRIPTION = {
    "cut short": (lambda text: text[:99], "is not JSON, or is cut short"),
    "empty": (lambda text: "", "is not JSON, or is cut short"),
    "a list": (lambda text: "[]", "holds a list and not an object of fields"),
    "of a number": (lambda text: json.dumps(json.loads(text) | {"generator": 3}), "not a domain's description .generator is 3"),
    "of a list": (lambda text: json.dumps(json.loads(text) | {"segmenters": []}), r"segmenters is \[\]"),
    "of lists": (lambda text: json.dumps(json.loads(text) | {"segmenters": {"x": []}}), "segmenters and sources cannot hold"),
    "sources": (lambda text: json.dumps(json.loads(text) | {"sources": {"x": {}}}), "segmenters and sources cannot hold"),
}


@pytest.mark.parametrize("damage", DESCRIPTION)
def test_a_damaged_domain_is_explained(weights_dir, tmp_path, damage):
    shutil.copytree(weights_dir / "tiny", tmp_path / "tiny")
    path, (change, message) = tmp_path / "tiny" / "domain.json", DESCRIPTION[damage]
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=f"domain.json.*{message}.*make the domain again"):
        load_domain("tiny", tmp_path)


def test_a_domain_may_be_written_by_any_editor(tmp_path):
    path = make_domain(tmp_path / "tiny") / "domain.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_domain("tiny", tmp_path).name == "tiny"


@pytest.mark.parametrize(
    "defaults, message",
    [({"steps": "6"}, "steps is '6'; give a whole number"), ({"steps": 6.5}, "steps is 6.5; give a whole number"),
     ({"tau": True}, "tau is True; give a number"), ({"methods": []}, r"methods holds \[\]; give each method an object"),
     ({"methods": {"segment_global": 3}}, "methods holds 3; give each method an object"),
     ({"methods": {"segment_global": {"lambda_l2": None}}}, "lambda_l2 is None; give a number")],
)  # fmt: skip
def test_a_domains_settings_of_other_types_are_explained(defaults, message):
    with pytest.raises(ValueError, match=f"the settings in domain.json: {message}"):
        resolve(make("happy", "method=segment_global"), defaults)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda record: record.pop("weights_sha256"), "weights_sha256 is missing"),
        (lambda record: record.update(tau="0.5"), "tau is '0.5'"),
        (lambda record: record["settings"].update(truncation="0.7"), "truncation is '0.7'; give a number"),
        (lambda record: record["settings"].update(steps=6.5), "steps is 6.5; give a whole number"),
        (lambda record: record["settings"].update(lambda_new=1), "the settings are .*lambda_new.*; known: area_exponent, "),
    ],
)
def test_a_damaged_edit_is_explained(trained, weights_dir, tmp_path, change, message):
    shutil.copytree(trained.folder / "edit", tmp_path / "edit")
    path = tmp_path / "edit" / "edit.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=f"edit.json.*{message}"):
        load_edit(tmp_path, weights_dir)


@pytest.mark.parametrize("content", ["[]", "{", "", "{}"])
@pytest.mark.parametrize("name", ["config.json", "summary.json"])
def test_damaged_records_of_a_run_are_explained(trained, weights_dir, tmp_path, name, content):
    for kept in ("config.json", "summary.json"):
        shutil.copy(trained.folder / kept, tmp_path / kept)
    assert finished(tmp_path) == trained.summary
    (tmp_path / name).write_text(content)
    message = "of another configuration: .*delete this one" if (name, content) == ("config.json", "{}") else "delete"
    with pytest.raises(ValueError, match=rf"{tmp_path}.*{message}"):
        train(run_config(weights_dir), tmp_path)
