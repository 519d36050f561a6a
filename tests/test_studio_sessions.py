"""Open pages: what each holds is its own, and goes with it."""

import weakref

import numpy as np
import pytest
from PIL import Image

from coral_jax.figures import png
from coral_jax.latents import w_plus_of_seeds
from coral_jax.photos.align import whole
from coral_jax.photos.photo import Photo, save_photo
from coral_jax.recipe import of_json
from coral_jax.studio import sessions as rooms
from coral_jax.studio.easel import Easel
from coral_jax.studio.sessions import Sessions
from coral_jax.studio.uploads import keep

pytestmark = pytest.mark.usefixtures("quick")
PICTURE = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)


@pytest.fixture
def photo(domain):
    w_plus = w_plus_of_seeds(domain.generator, [4], 0.8)[0]
    return Photo("me", PICTURE, "0" * 64, whole(len(PICTURE)), "tiny", domain.fingerprint, 0.5, w_plus)


@pytest.fixture
def recipe(domain):
    """The photo "me" without an edit."""
    about = {"format": 1, "domain": "tiny", "domain_fingerprint": domain.fingerprint}
    return of_json(about | {"face": {"photo": "me"}, "edits": []}, "it")


def test_a_photograph_is_seen_by_its_page_alone(photo, recipe, weights_dir, tmp_path):
    easel, sessions = Easel(tmp_path / "runs", tmp_path / "photos", str(weights_dir)), Sessions(tmp_path / "pages")
    mine, other = sessions.open(), sessions.open()
    save_photo(mine.folder / "me", photo)
    assert easel.picture(mine, recipe, "saved") == png(Image.fromarray(PICTURE))
    assert easel.photos(mine, "tiny") == [{"name": "me", "own": True}] and easel.photos(mine, "toons") == []
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
