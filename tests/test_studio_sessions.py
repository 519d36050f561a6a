"""Open pages: what each holds is its own, and goes with it."""

import contextlib
import dataclasses
import subprocess
import threading
import time
import weakref

import numpy as np
import pytest
from PIL import Image

from coral_jax.figures import png
from coral_jax.latents import w_plus_of_seeds
from coral_jax.photos.align import whole
from coral_jax.photos.photo import Photo, save_photo
from coral_jax.recipe import of_json
from coral_jax.sitter import photo_folders
from coral_jax.studio import sessions as rooms
from coral_jax.studio.easel import Easel
from coral_jax.studio.sessions import Sessions
from coral_jax.studio.uploads import Upload, end, keep

PICTURE = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)


@pytest.fixture
def photo(domain):
    w_plus = w_plus_of_seeds(domain.generator, [4], 0.8)[0]
    return Photo("me", PICTURE, "0" * 64, whole(len(PICTURE)), "tiny", domain.fingerprint, 0.5, w_plus)


@pytest.fixture
def recipe(domain):
    """Makes the recipe of a photo without an edit."""

    def make(face):
        about = {"format": 1, "domain": "tiny", "domain_fingerprint": domain.fingerprint}
        return of_json(about | {"face": face, "edits": []}, "it")

    return make


def test_a_photograph_is_seen_by_its_page_alone(photo, recipe, weights_dir, tmp_path):
    easel, sessions = Easel(tmp_path / "runs", tmp_path / "photos", str(weights_dir)), Sessions(tmp_path / "pages")
    mine, other = sessions.open(), sessions.open()
    save_photo(mine.folder / "me", photo)
    (known,) = easel.photos(mine, "tiny")
    recipe = recipe(known["face"])
    assert easel.picture(mine, recipe, "saved") == png(Image.fromarray(PICTURE))
    assert known["face"]["photo"] == "me" and known["own"] and easel.photos(mine, "toons") == []
    assert easel.photos(other, "tiny") == []
    for size in ("saved", "preview"):
        with pytest.raises(ValueError, match="there is no photo 'me'"):
            easel.picture(other, recipe, size)
    with pytest.raises(ValueError, match="this page has no photograph 'me'"):
        keep(other.folder, "me", tmp_path / "photos")
    assert keep(mine.folder, "me", tmp_path / "photos") == "me" and keep(mine.folder, "me", tmp_path / "photos") == "me_2"
    assert easel.picture(other, recipe, "saved") == png(Image.fromarray(PICTURE))
    canvas = weakref.ref(next(iter(mine.canvases.values())))
    sessions.close(mine.token)
    assert canvas() is None and not mine.folder.exists() and sessions.get(mine.token) is None
    assert sessions.get(other.token) is other


def test_a_recipe_draws_its_own_photo_or_none(photo, recipe, weights_dir, tmp_path):
    """Another person's photo may have the same name: in the folder of photos, or made there later."""
    easel, page = Easel(tmp_path / "runs", tmp_path / "photos", str(weights_dir)), Sessions(tmp_path / "pages").open()
    other = dataclasses.replace(photo, picture=255 - PICTURE, picture_sha256="1" * 64)
    again = dataclasses.replace(other, w_plus=other.w_plus + 1)
    save_photo(page.folder / "me", photo)
    save_photo(tmp_path / "photos" / "me", other)
    mine, kept = (recipe(one["face"]) for one in easel.photos(page, "tiny"))
    assert easel.picture(page, mine, "saved") == png(Image.fromarray(PICTURE))
    assert easel.picture(page, kept, "saved") == png(Image.fromarray(255 - PICTURE))
    stranger = Sessions(tmp_path / "others").open()
    save_photo(tmp_path / "photos" / "me", again)
    for wrong in (mine, kept):
        with pytest.raises(ValueError, match="is not the one of the recipe"):
            easel.picture(stranger, wrong, "saved")
    with pytest.raises(ValueError, match="it: the face is not a photo"):
        recipe({"photo": "me"})


def test_what_was_copied_in_part_is_no_photo(photo, tmp_path, monkeypatch):
    page, photos = Sessions(tmp_path / "pages").open(), tmp_path / "photos"
    save_photo(page.folder / "me", photo)
    save_photo(photos / ".me.partial", photo)  # a program that was killed left it
    assert photo_folders(photos) == {}
    monkeypatch.setattr("shutil.copytree", lambda source, target: target.mkdir() or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        keep(page.folder, "me", photos)
    monkeypatch.undo()
    assert keep(page.folder, "me", photos) == "me" and {entry.name for entry in photos.iterdir()} == {".me.partial", "me"}


def test_pages_that_are_silent_are_closed(tmp_path, monkeypatch):
    sessions = Sessions(tmp_path)
    page = sessions.open()
    sessions.close_idle()
    assert sessions.get(page.token) is page
    monkeypatch.setattr(rooms, "IDLE", -1.0)
    sessions.close_idle()
    assert sessions.get(page.token) is None and len(sessions) == 0


def test_of_too_many_pages_the_most_silent_one_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(rooms, "MOST", 2)
    sessions = Sessions(tmp_path)
    first, second = sessions.open(), sessions.open()
    assert sessions.get(first.token) is first  # heard of after the second
    third = sessions.open()
    assert len(sessions) == 2 and sessions.get(second.token) is None and sessions.get(third.token) is third
    assert len({first.token, second.token, third.token}) == 3


def test_an_inversion_ends_with_its_page(tmp_path):
    """Also where the page closes while the picture is read, and a page has one at a time."""
    sessions = Sessions(tmp_path)
    page, late = sessions.open(), sessions.open()
    upload = page.take(lambda: working(page))
    with pytest.raises(ValueError, match="one photograph of this page is being inverted"):
        page.take(lambda: working(page))
    sessions.close_all()
    assert upload.process.returncode is not None and not page.folder.exists() and len(sessions) == 0
    with pytest.raises(ValueError, match="this page was closed"):
        late.take(lambda: working(late))


def working(page):
    """An upload whose inversion goes on and on."""
    page.folder.mkdir(parents=True, exist_ok=True)
    return Upload("me", subprocess.Popen(["sleep", "60"]), page.folder / "log.txt")


def test_two_uploads_at_once_are_one(tmp_path):
    sessions, gate = Sessions(tmp_path), threading.Barrier(2)
    page = sessions.open()

    def upload():
        gate.wait()
        with contextlib.suppress(ValueError):
            begun.append(page.take(lambda: time.sleep(0.05) or working(page)))

    begun = []
    both = [threading.Thread(target=upload) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    sessions.close(page.token)
    for one in begun:
        end(one)
    assert len(begun) == 1
