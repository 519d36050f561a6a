"""Published edits: one file that is read wherever an edit is, and can write nothing anywhere."""

import json
import shutil
import zipfile

import numpy as np
import pytest

from coral_jax import bundle, shelf
from coral_jax.artifact import load_edit
from coral_jax.domains import EMBEDDED
from coral_jax.publishing import publish
from coral_jax.runtime.files import write_json


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    return publish(trained.folder, tmp_path_factory.mktemp("published") / "surprised.zip", "CC0-1.0")


def test_a_published_edit_is_the_edit(published, trained, weights_dir):
    there, here = load_edit(published, weights_dir), load_edit(trained.folder, weights_dir)
    assert (there.prompt, there.tau, there.settings) == (here.prompt, here.tau, here.settings)
    assert bundle.read_member(published, "weights.safetensors") == (trained.folder / "edit/weights.safetensors").read_bytes()
    assert shelf.find("surprised", published.parent).sha256 == shelf.find("surprised", trained.folder.parent).sha256
    assert shelf.home_of(str(published)) == published.parent / "surprised"


def test_the_same_edit_gives_the_same_file_with_sheet_and_card(published, trained, tmp_path):
    again = publish(trained.folder / "edit", tmp_path / "again.zip", "CC0-1.0")
    assert again.read_bytes() == published.read_bytes()
    assert bundle.read_member(again, "sheet.png") == (trained.folder / "sheet.png").read_bytes()
    text = bundle.read_member(again, "README.md").decode()
    summary = json.loads((trained.folder / "summary.json").read_text())
    for part in ("# surprised", "| method | attention_mapper |", "| licence | CC0-1.0 |", summary["domain_fingerprint"]):
        assert part in text


def test_what_cannot_be_published_is_explained(trained, tmp_path):
    with pytest.raises(ValueError, match="domain 'tiny' decide how this edit may be used; say it with --licence"):
        publish(trained.folder, tmp_path / "x.zip", None)
    with pytest.raises(ValueError, match="give the name of a zip file, such as --out=x.zip"):
        publish(trained.folder, tmp_path / "x", "CC0-1.0")
    with pytest.raises(ValueError, match="no edit in"):
        publish(tmp_path, tmp_path / "x.zip", "CC0-1.0")
    assert not any(tmp_path.iterdir())


def test_damaged_and_hostile_files_are_refused(published, weights_dir, tmp_path, monkeypatch):
    broken = tmp_path / "broken.zip"
    broken.write_bytes(published.read_bytes()[:5000])
    with pytest.raises(ValueError, match="is damaged, or no zip file"):
        load_edit(broken, weights_dir)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("../edit.json", "{}")
    with pytest.raises(ValueError, match="it lacks edit.json"):
        load_edit(tmp_path / "other.zip", weights_dir)
    folder = tmp_path / "there"
    folder.mkdir()
    hostile = folder / "hostile.zip"
    shutil.copy(published, hostile)
    with zipfile.ZipFile(hostile, "a") as more:
        more.writestr("../../escaped", b"x")
    assert load_edit(hostile, weights_dir).prompt == "surprised" and not list(tmp_path.rglob("escaped"))
    for most in ("MOST_BYTES", "MOST_DESCRIPTION"):
        monkeypatch.setattr(bundle, most, 100)
    with pytest.raises(ValueError, match="is larger than 100 bytes"):
        load_edit(published, weights_dir)
    assert {name for name in shelf.shelf(tmp_path) if ":" not in name} == set()


@pytest.mark.parametrize("damage", [{"tau": float("nan")}, {"tau": 10**400}, {"tau": "0"}, {"prompt": 3}, {"settings": None}])
def test_one_bad_edit_does_not_take_the_shelf_away(published, trained, tmp_path, damage):
    good = json.loads(bundle.read_member(published, "edit.json"))
    for name, content in (("good", good), ("bad", good | damage)):
        write_json(tmp_path / name / "edit" / "edit.json", content)
        bundle.write_bundle(tmp_path / f"{name}_zip.zip", {"edit.json": json.dumps(content).encode()})
    assert {name for name in shelf.shelf(tmp_path) if ":" not in name} == {"good", "good_zip"}


@pytest.mark.parametrize("text", [b"[" * 100_000, b"[]", b"\xff", b'{"a": "' + b" " * (1 << 20) + b'"}'])
def test_what_is_no_description_is_left_out(tmp_path, text):
    (tmp_path / "bad" / "edit").mkdir(parents=True)
    (tmp_path / "bad" / "edit" / "edit.json").write_bytes(text)
    bundle.write_bundle(tmp_path / "bad_zip.zip", {"edit.json": text})
    with zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("edit.json", "{}")
    assert {name for name in shelf.shelf(tmp_path) if ":" not in name} == set()
    with pytest.raises(ValueError, match="is packed by another way than deflate"):
        load_edit(tmp_path / "lzma.zip")


def test_a_run_comes_before_the_file_that_it_was_published_as(published, trained, tmp_path):
    shutil.copy(published, tmp_path / "surprised.zip")
    assert shelf.find("surprised", tmp_path).path == tmp_path / "surprised.zip"
    for folder in ("surprised", "compared/again/attention_mapper/surprised"):
        shutil.copytree(trained.folder, tmp_path / folder)
    assert shelf.find("surprised", tmp_path).path == tmp_path / "surprised"
    assert shelf.find("compared/again/attention_mapper/surprised", tmp_path)  # of an evaluation that Compare shows


def test_the_package_has_edits_of_toons():
    """They fit the domain that ships: an edit of other weights would be refused when it is picked."""
    known = {name: edit for name, edit in shelf.shelf().items() if name.startswith("toons:")}
    assert len(known) >= 3 and sum(edit.path.stat().st_size for edit in known.values()) <= 1_500_000
    for name, one in known.items():
        edit = load_edit(shelf.edit_path(name))
        assert edit.domain.folder == EMBEDDED["toons"] and edit.prompt == one.prompt
        text = bundle.read_member(one.path, "README.md").decode()
        assert "success" in text and "Apache-2.0" in text
        assert np.isfinite(edit.tau)
