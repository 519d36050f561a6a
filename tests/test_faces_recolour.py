"""faces/recolour.py, faces/labels.py, faces/directions.py: what is known of generated faces, and what is changed in them."""

import numpy as np

from coral_jax.faces import directions, labels, recolour
from coral_jax.faces.captions import VOCABULARY
from coral_jax.faces.critics import PARTS
from coral_jax.faces.pool import Pool
from coral_jax.faces.recolour import COLOURS, Prepared


def test_a_tinted_part_has_the_colour_and_keeps_its_shading():
    image = np.zeros((1, 2, 2, 3), np.float32)
    image[0, 0, 0], image[0, 0, 1], image[0, 1] = 50, 150, 77
    share = np.array([[[1, 1], [0, 0]]], np.float32)
    tinted = recolour.tinted(image, share, np.array([[100, 40, 60]], np.float32))
    np.testing.assert_array_equal(tinted[0, 1], 77)  # the rest stays
    # The part's mean luminance is 100, of which its pixels have 0.5 and 1.5.
    np.testing.assert_allclose(tinted[0, 0, 0], [50, 20, 30], rtol=0.02)
    np.testing.assert_allclose(tinted[0, 0, 1], [150, 60, 90], rtol=0.02)


def _prepared(count: int) -> Prepared:
    images = np.full((count, 12, 12, 3), 100, np.uint8)
    shares = np.zeros((count, 12, 12, len(recolour.PARTS)), np.uint8)
    for place in range(len(recolour.PARTS)):
        shares[:, 2 * place : 2 * place + 2, :, place] = 255
    return Prepared(images, shares, np.zeros((count, len(VOCABULARY)), bool), np.zeros((count, len(VOCABULARY)), bool))


def test_what_is_known_of_a_recoloured_face_is_what_was_done_to_it():
    faces = _prepared(60)
    images, true, known = recolour.recoloured(faces, np.arange(60), np.random.default_rng(0))
    changed = np.abs(images - 100).max(axis=(2, 3)) > 0
    for part in ("iris", "lips"):
        columns = [VOCABULARY.index(name) for name in COLOURS[part] if name]
        rows = changed[:, 2 * recolour.PARTS.index(part)]
        assert 5 < rows.sum() < 55
        np.testing.assert_array_equal(known[:, columns], np.repeat(rows[:, None], len(columns), 1))
        assert (true[:, columns].sum(axis=1) <= rows).all() and true[:, columns].any()
    assert not known[:, VOCABULARY.index("happy")].any()
    assert not (faces.true | faces.known).any()  # the pool's own stay


def test_a_face_recoloured_blue_is_blue():
    faces = _prepared(200)
    images, true, _ = recolour.recoloured(faces, np.arange(200), np.random.default_rng(1))
    blue = true[:, VOCABULARY.index("blue_hair")]
    red, _, other = np.moveaxis(images[blue][:, 0], -1, 0)
    assert blue.sum() > 3 and (other > red).all()


def test_hair_of_any_colour_is_called_by_what_it_looks_like():
    faces = _prepared(400)
    images, true, known = recolour.recoloured(faces, np.arange(400), np.random.default_rng(2))
    colour = images[:, 0].mean(axis=1)  # of the hair, all of which has one colour
    blond, purple = VOCABULARY.index("blond_hair"), VOCABULARY.index("purple_hair")
    light = colour @ np.array([0.3, 0.59, 0.11]) / 255
    assert light[true[:, blond]].min() > 0.45
    assert (known[:, blond] & ~true[:, blond]).sum() > 40 and not true[~known].any()
    red, green, blue = colour[true[:, purple]].T
    assert len(red) > 5 and (blue > green).all() and (red > green).all()


def test_copper_and_orange_are_not_blond_and_a_blue_shine_is_not_purple():
    copper, golden, shine, purple, silver = (150, 90, 50), (215, 180, 120), (20, 22, 30), (120, 50, 160), (170, 172, 168)
    found = labels.hair_colours(np.array([copper, golden, shine, purple, silver], np.float32))
    yes = {name: list(both[0]) for name, both in found.items()}
    no = {name: list(both[1]) for name, both in found.items()}
    assert yes["blond_hair"] == [False, True, False, False, False] and no["blond_hair"] == [True, False, True, True, True]
    assert yes["purple_hair"] == [False, False, False, True, False] and no["purple_hair"] == [True, True, True, False, True]
    assert yes["black_hair"] == [False, False, True, False, False]
    assert yes["grey_hair"] == [False, False, False, False, True]
    assert not any((yes & no).any() for yes, no in found.values())
    blond, not_blond = labels.hair_colours(np.array([[235, 145, 70], [235, 110, 50]]))["blond_hair"]  # orange, redder
    assert not blond.any() and list(not_blond) == [False, True]


def _labels() -> np.ndarray:
    """A face of 256 px: skin all over, two eyes, hair above."""
    found = np.full((256, 256), PARTS.index("skin"), np.uint8)
    found[:60] = PARTS.index("hair")
    eyes = [i for i, part in enumerate(PARTS) if part == "eye"]
    found[114:126, 80:104], found[114:126, 152:176] = eyes
    return found


def test_irises_are_the_dark_discs_in_the_eyes():
    found, image = _labels(), np.full((256, 256, 3), 220, np.uint8)
    y, x = np.mgrid[:256, :256]
    for centre in ((95, 120), (166, 119)):
        image[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 36] = 40
    image[:60] = 0
    np.testing.assert_allclose(labels.irises(image, found), [(95, 120), (166, 119)], atol=1.5)
    share = labels.iris_mask(image, found)
    assert share.max() <= 1 and not share[found == PARTS.index("skin")].any()


def test_rules_leave_the_doubtful_unknown():
    count = 3
    pool = Pool(
        w=np.zeros((count, 4), np.float32), images=np.full((count, 256, 256, 3), 30, np.uint8),
        labels=np.repeat(_labels()[None], count, 0), hair=np.zeros((count, 128, 128), np.uint8),
        expression=np.eye(7, dtype=np.float32)[[0, 0, 1]], age=np.array([70, 48, 8], np.float32),
        male=np.array([0.99, 0.5, 0.5], np.float32),
    )  # fmt: skip
    true, known = labels.truths(labels.measures(pool))

    def says(name: str) -> list:
        column = VOCABULARY.index(name)
        return [bool(t) if k else None for t, k in zip(true[:, column], known[:, column], strict=True)]

    assert says("old") == [True, None, False]
    assert says("child") == [False, False, True]
    assert says("man") == [True, None, None]
    assert says("black_hair") == [True] * 3
    assert says("purple_hair") == [False] * 3
    assert says("glasses") == [False] * 3
    assert says("serious") == [True, True, False]


def test_a_direction_is_the_one_on_which_the_score_rises(monkeypatch):
    random = np.random.default_rng(0)
    w = random.standard_normal((300, 12)).astype(np.float32)
    monkeypatch.setattr(directions, "_HELD", {})
    monkeypatch.setattr(directions, "scores", lambda _: {"first": w[:, 0] + 3, "holes": np.where(w[:, 1] > 2, np.nan, w[:, 1])})
    found = directions.fit(w, {})
    assert found["first"][0] > 0.98 and found["holes"][1] > 0.95
    np.testing.assert_allclose(np.linalg.norm(found["first"]), 1, rtol=1e-5)


def test_a_direction_leaves_the_scores_that_it_should_hold(monkeypatch):
    random = np.random.default_rng(0)
    w = random.standard_normal((300, 12)).astype(np.float32)
    scores = {"closed": w[:, 0] + w[:, 1] + w[:, 2], "happy": w[:, 1], "open": w[:, 2]}
    monkeypatch.setattr(directions, "scores", lambda _: scores)
    found = directions.fit(w, {})
    assert found["closed"][0] > 0.98
    np.testing.assert_allclose([found["closed"] @ found[name] for name in ("happy", "open")], 0, atol=1e-5)


def test_moved_faces_go_as_far_as_they_should():
    table = {name: np.eye(32, dtype=np.float32)[i] for i, name in enumerate(directions.SHARES)}
    w = np.zeros((200, 32), np.float32)
    moved = directions.moved(w, table, 0)
    assert (moved.max(axis=1) >= directions.UNITS[0] - 4).all() and moved.max() <= directions.UNITS[1] + 4
    np.testing.assert_array_equal(moved, directions.moved(w, table, 0))
