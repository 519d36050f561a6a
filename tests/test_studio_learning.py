"""Trainings of the studio: what is said before, pausing, stopping, names of folders."""

import json
import os
import shutil
import sys
import threading
from types import SimpleNamespace

import pytest

from coral_jax.config import folder_name
from coral_jax.domains import load_domain
from coral_jax.studio.learner import Watcher
from coral_jax.studio.learning import PACE, START, Learning, methods_of


def test_what_a_training_takes_is_said_before(trained, domain, tmp_path):
    learning = Learning(tmp_path / "none", None)
    plan = learning.plan(domain, "happy", "attention_global", None)
    assert plan == {"steps": 6, "unknown": [], "seconds": None, "from": "no run of it yet"}
    known = Learning(trained.folder.parent, None)
    summary = trained.summary
    seconds, source = known.expected("tiny", "attention_mapper", 100)
    rest = summary["seconds_total"] - 6 * summary["seconds_per_step"]
    assert seconds == pytest.approx(rest + 100 * summary["seconds_per_step"]) and source == "1 run(s) on this computer"
    assert learning.expected("toons", "stylemc", 10)[0] == START + 10 * PACE["toons", "stylemc"]


def test_words_that_clip_never_saw_are_named():
    toons = load_domain("toons")
    plan = Learning(toons.folder / "none", None).plan(toons, "happpy robot", "attention_mapper", 5)
    assert plan["unknown"][0] == "'happpy'; did you mean 'happy'?" and len(plan["unknown"]) == 2


@pytest.mark.parametrize(
    ("prompt", "method", "steps", "message"),
    [(" ", "attention_mapper", 1, "no prompt"), ("x", "magic", 1, "magic"), ("x " * 99, "attention_mapper", 1, "tokens"),
     ("x", "attention_mapper", 0, "steps is 0")],
)  # fmt: skip
def test_trainings_that_cannot_be_are_explained(domain, tmp_path, prompt, method, steps, message):
    with pytest.raises(ValueError, match=message):
        Learning(tmp_path, None).plan(domain, prompt, method, steps)


def test_a_prompt_is_never_a_path(tmp_path):
    (tmp_path / "prompts.txt").write_text("secret\n")
    names = [folder_name(prompt) for prompt in ("../x", "/etc/passwd", "a;b", str(tmp_path / "prompts.txt"), "..")]
    assert names[:3] == ["x", "etc_passwd", "a_b"] and "secret" not in names
    assert all("/" not in name and name.strip(".") for name in names)


def test_methods_without_segmenters():
    assert methods_of(SimpleNamespace(default_segmenter="parts"))[:2] == ["segment_global", "segment_mapper"]
    assert not [name for name in methods_of(SimpleNamespace(default_segmenter=None)) if name.startswith("segment")]


def test_words_pause_and_end_a_training(tmp_path):
    watcher = Watcher(SimpleNamespace(), [0], tmp_path / "sheet.png")
    assert not watcher.stops(1)
    watcher.hear("pause")
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(watcher.stops(2)))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive() and not answers
    watcher.hear("go")
    waiting.join()
    assert answers == [False]
    watcher.hear("pause")
    watcher.listen(iter([]))  # the studio is gone
    assert watcher.stops(3)


def test_a_run_that_is_gone_or_damaged_is_left_out(trained, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "runs" / "surprised")
    for name, plan in (("broken", "{"), ("surprised", json.dumps({"prompt": "surprised", "steps": 6, "fields": {
            "method": "attention_mapper", "domain": "tiny"}}))):  # fmt: skip
        (tmp_path / "runs" / name).mkdir(exist_ok=True)
        (tmp_path / "runs" / name / ".studio.json").write_text(plan)
    learning = Learning(tmp_path / "runs", None)
    (one,) = learning.trainings()
    assert (one["name"], one["state"], one["step"], one["steps"]) == ("surprised", "finished", 6, 6)
    assert learning.live("surprised") == (trained.folder / "sheet.png").read_bytes()
    with pytest.raises(ValueError, match="there is no training '../runs/surprised'"):
        learning.live("../runs/surprised")
    with pytest.raises(ValueError, match="'surprised' is not learning"):
        learning.stop("surprised")


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Makes a shell program take the place of the process that learns."""

    def place(lines):
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return place


@pytest.mark.parametrize(
    ("lines", "error"),
    [("echo Traceback; echo KeyError: 3; exit 1", "KeyError: 3"), ("echo error: no disk; echo; exit 1", "no disk"),
     ("echo stopped; exit 130", None), ("echo done", None)],
)  # fmt: skip
def test_it_is_said_why_a_training_ended(program, domain, tmp_path, lines, error):
    program(lines)
    learning = Learning(tmp_path / "runs", None)
    learning.start(domain, "surprised", "attention_global", 1, [0])
    learning.close()
    (one,) = learning.trainings()
    assert (one["state"], one["error"]) == ("stopped", error)


def test_ctrl_c_is_for_the_studio_and_a_slow_checkpoint_is_waited_for(program, domain, tmp_path, monkeypatch):
    """The terminal sends Ctrl+C to its whole process group; a training saves its checkpoint when the studio closes the pipe."""
    program("while read word; do :; done; sleep 0.5; echo saved")
    monkeypatch.setattr("coral_jax.studio.learning.WAIT", 0.05)
    learning = Learning(tmp_path / "runs", None)
    name = learning.start(domain, "surprised", "attention_global", 1, [0])
    assert os.getpgid(learning._process.pid) != os.getpgid(0) and learning.trainings()[0]["state"] == "starting"
    learning.close()
    assert learning._process.wait() == 0 and (tmp_path / "runs" / name / ".studio.log").read_text() == "saved\n"
