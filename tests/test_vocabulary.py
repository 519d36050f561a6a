"""Words that a domain's CLIP never saw are named before anything is trained, with the nearest that it did."""

import json
import shutil

import pytest
from conftest import run_config

from coral_jax.domains import load_domain, note_unknown_words
from coral_jax.evaluation import suites
from coral_jax.training import loop
from coral_jax.training.loop import Run, train_all


class Begun(Exception):
    """Training has begun."""


def begin(*_):
    raise Begun


@pytest.fixture
def toons_like(weights_dir, tmp_path):
    """A weights folder with the tiny domain, whose CLIP knows the toons' captions."""
    folder = shutil.copytree(weights_dir / "tiny", tmp_path / "weights" / "tiny")
    description = json.loads((folder / "domain.json").read_text()) | {"language": "toons"}
    (folder / "domain.json").write_text(json.dumps(description))
    return folder.parent


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("Happy", []),
        ("a drawing of a bearded person with curly hair and lipstick", []),
        ("smilling", ["'smilling'"]),
        ("zebra, Zebra stripes", ["'zebra'", "'stripes'"]),
        ("a happy man", ["'man'"]),  # no caption says it
        ("!?", ["'!?'"]),
    ],
)
def test_words_that_no_caption_held(toons_like, prompt, words):
    assert [said.partition(";")[0] for said in load_domain("tiny", toons_like).unknown_words(prompt)] == words


def test_plain_english_has_no_unknown_words(domain, capsys):
    note_unknown_words(domain, ["zebra", "happy"])
    assert capsys.readouterr().err == ""


def test_training_names_them_before_it_begins(toons_like, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loop, "_learn", begin)
    prompts = ["happy", "a wizard", "green glases"]
    with pytest.raises(Begun):
        train_all(run_config(toons_like), [Run(prompt, tmp_path / prompt) for prompt in prompts])
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "note: in the prompt 'a wizard', the CLIP of tiny never saw 'wizard'",
        "note: in the prompt 'green glases', the CLIP of tiny never saw 'glases'",
    ]
    assert lines[1].endswith("; did you mean 'glasses'?")


def test_evaluation_names_them_before_it_begins(toons_like, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(suites, "evaluate", begin)
    with pytest.raises(Begun):
        suites.compare(tmp_path / "out", ["attention_global"], ["happy", "wizard"], "tiny", weights_dir=str(toons_like))
    assert capsys.readouterr().err.startswith("note: in the prompt 'wizard', the CLIP of tiny never saw 'wizard'")
