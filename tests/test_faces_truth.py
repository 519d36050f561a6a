"""faces/truth.py and faces/attributes.py with judges made up: what is counted as success, leak, drift and movement."""

from dataclasses import replace

import numpy as np
import pytest

from coral_jax.domains import load_domain
from coral_jax.faces import truth
from coral_jax.faces.attributes import ATTRIBUTES, answers, drift
from coral_jax.faces.captions import VOCABULARY
from coral_jax.faces.critics import PARTS
from coral_jax.faces.judges import BLENDSHAPES

HAIR, SKIN, LIP = PARTS.index("hair"), PARTS.index("skin"), PARTS.index("lip")


def measures(**changed):
    """Of a serious bald man of 30 without anything on."""
    found = dict.fromkeys(BLENDSHAPES, 0.0)
    found |= {f"share_{part}": 0.0 for part in PARTS} | {"light_glasses": 100.0, "cheek": 150.0, "below": 0.0, "bangs": 0.0}
    found |= {"age": 30.0, "male": 0.9}
    found |= {f"colour_{part}": [120.0, 90.0, 80.0] for part in ("hair", "skin", "lips", "iris")}
    return {name: np.array([value], np.float32) for name, value in (found | changed).items()}


def test_attributes_are_words_of_the_clip_and_regions_are_parts():
    assert set(ATTRIBUTES) <= set(VOCABULARY)
    assert all(set(attribute.region) | set(attribute.grown) <= set(PARTS) for attribute in ATTRIBUTES.values())


@pytest.mark.parametrize("name, changed", [
    ("happy", {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.8}),
    ("surprised", {"jawOpen": 0.5}),
    ("eyes_closed", {"eyeBlinkLeft": 0.8, "eyeBlinkRight": 0.7}),
    ("old", {"age": 70.0}),
    ("glasses", {"share_glasses": 0.02}),
    ("hat", {"share_hat": 0.1}),
    ("purple_hair", {"share_hair": 0.2, "colour_hair": [120.0, 60.0, 150.0]}),
    ("blond_hair", {"share_hair": 0.2, "colour_hair": [200.0, 160.0, 110.0]}),
    ("lipstick", {"colour_lips": [170.0, 50.0, 60.0]}),
])  # fmt: skip
def test_an_attribute_is_seen_where_it_is_and_lacking_where_it_is_not(name, changed):
    plain = measures(share_hair=np.float32(0.2), colour_hair=[60.0, 45.0, 40.0])
    assert [bool(answer[0]) for answer in answers(plain, [name])[name]] == [False, True]
    assert [bool(answer[0]) for answer in answers(measures(**changed), [name])[name]] == [True, False]


def test_what_is_not_measured_is_neither_there_nor_lacking():
    nothing = {name: np.full_like(values, np.nan) for name, values in measures().items()}
    assert not any(has.any() or lacks.any() for has, lacks in answers(nothing, ["happy", "old", "lipstick"]).values())


def test_drift_counts_certain_attributes_of_other_groups_that_turn_over():
    before, after = measures(), measures(share_glasses=0.02, mouthSmileLeft=0.9, mouthSmileRight=0.9)
    turned, certain = drift(before, after, ["happy"])
    assert turned[0] == 1  # glasses; sunglasses they are not
    assert certain[0] > 10
    assert drift(before, before, ["happy"])[0][0] == 0
    assert drift(before, after, ["glasses"])[0][0] == sum(name in ("happy", "serious") for name in ATTRIBUTES)


def faces_with(labels, count=2):
    return np.repeat(np.asarray(labels, np.uint8)[None], count, axis=0)


def square(part, start, stop):
    labels = np.zeros((256, 256), np.uint8)
    labels[start:stop, start:stop] = part
    return labels


def test_a_region_is_the_parts_of_the_prompt_grown_by_eight_pixels():
    where = truth.region(["purple_hair"], faces_with(square(HAIR, 100, 110)))
    assert where.shape == (2, 256, 256, 1) and where[0].sum() == 26 * 26 and where[0, 92:118, 92:118].all()
    assert not truth.region(["purple_hair"], faces_with(square(SKIN, 100, 110))).any()
    assert not truth.region(["glasses"], faces_with(square(HAIR, 100, 110)), grown=True).any()


@pytest.fixture
def judging(monkeypatch):
    """Judges that see hair on the square 0 to 128, and a smile where the picture's first pixel is white."""

    def landmarks(_, images):
        shapes = {name: np.zeros(len(images), np.float32) for name in BLENDSHAPES}
        shapes["mouthSmileLeft"] = shapes["mouthSmileRight"] = np.float32(np.asarray(images)[:, 0, 0, 0] > 0.9)
        points = np.full((len(images), 2, 2), 30.0, np.float32)
        points[:, 1] = 200 + 3 * shapes["mouthSmileLeft"][:, None]
        return points, shapes

    monkeypatch.setattr(truth.networks, "parts", lambda _, images: faces_with(square(HAIR, 0, 128), len(images)))
    monkeypatch.setattr(truth.networks, "landmarks", landmarks)
    monkeypatch.setattr(truth.networks, "age_gender", lambda _, images: (np.full(len(images), 30.0), np.full(len(images), 0.9)))
    monkeypatch.setattr(truth.networks, "embed", lambda _, images: np.eye(256, dtype=np.float32)[[0] * len(images)])
    monkeypatch.setattr(truth.networks, "load", lambda _: "judges")
    return "judges"


@pytest.fixture
def images():
    return np.zeros((2, 512, 512, 3), np.float32)


def test_change_outside_the_region_is_leak(judging, images):
    seen = truth.look(judging, images)
    asked = truth.HeldOut(np.zeros((2, 1, 1)), truth.region(["purple_hair"], seen.labels), ["purple_hair"], seen)
    edited = images.copy()
    edited[0, :100, :100] = 0.5  # inside the hair
    edited[1, :100, :100] = edited[1, -100:, -100:] = 0.5  # as much outside
    found = truth.judge(judging, asked, images, edited)
    np.testing.assert_allclose(found["outside"] / found["change"], [0, 0.5], atol=1e-6)
    assert found["change"][0] == pytest.approx(1.5 * 50 * 50) and not found["succeeded"].any()
    np.testing.assert_allclose(found["recognised"], 1)


def test_success_drift_and_movement_are_of_the_edited_face(judging, images):
    seen = truth.look(judging, images)
    asked = truth.HeldOut(np.zeros((2, 1, 1)), truth.region(["purple_hair"], seen.labels), ["purple_hair"], seen)
    edited = images.copy()
    edited[1, :2, :2] = 1  # smiles
    found = truth.judge(judging, asked, images, edited)
    assert found["drifted"].tolist() == [0, 2]  # happy, and no longer serious
    np.testing.assert_allclose(found["moved"], [0, 3 * np.sqrt(2)], rtol=1e-6)  # the point at 30 px lies in the hair
    assert found["landmarks"].tolist() == [1, 1]
    smiling = asked._replace(attributes=["happy"])
    assert truth.judge(judging, smiling, images, edited)["succeeded"].tolist() == [False, True]


def test_held_out_faces_are_looked_at_once(judging, weights_dir, tmp_path, monkeypatch):
    domain = replace(load_domain("tiny", weights_dir), folder=tmp_path / "tiny", settings={"truncation": 0.7})
    drawn = []

    def draw(_, w_plus):
        drawn.append(len(w_plus))
        return np.zeros((len(w_plus), 256, 256, 3), np.float32)

    monkeypatch.setattr(truth, "_draw", draw)
    asked = truth.held_out(domain, "happy", 12)
    again = truth.held_out(domain, "happy", 12)
    assert drawn == [8, 8] and asked.w_plus.shape[0] == 12 and asked.attributes == ["happy"]
    for name in ("w_plus", "region"):
        np.testing.assert_array_equal(getattr(asked, name), getattr(again, name))
    np.testing.assert_array_equal(asked.seen.points, again.seen.points)
    assert truth.held_out(domain, "happy", 12, truth.SELECTION_SEED).w_plus[0, 0, 0] != asked.w_plus[0, 0, 0]
    assert truth.held_out(domain, "a hippie", 12) is None and truth.held_out(domain, "pale", 12) is None
    monkeypatch.setattr(truth, "MOST_DRAWN", 16)
    with pytest.raises(ValueError, match="only 0 of 16 faces lack .'serious'.; measure fewer"):
        truth.held_out(domain, "serious", 2)


def test_metrics_of_an_edit(judging, weights_dir, tmp_path, monkeypatch):
    domain = replace(load_domain("tiny", weights_dir), folder=tmp_path / "tiny", settings={"truncation": 0.7})
    monkeypatch.setattr(truth, "_draw", lambda _, w_plus: np.zeros((len(w_plus), 256, 256, 3), np.float32))
    monkeypatch.setattr(truth, "likeness", lambda *_: np.ones(len(_[1])))

    def edit(w_plus):
        original = np.zeros((len(w_plus), 256, 256, 3), np.float32)
        edited = original.copy()
        edited[:6, 0, 0] = 1
        return original, edited, []

    found = truth.measure(domain, "happy", edit, 10)
    assert found["success"] == pytest.approx(0.8) and found["leak"] == 1 and found["faces"] == 10  # six of eight, two of two
    assert truth.measure(domain, "a hippie", edit, 10) is None
