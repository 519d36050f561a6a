"""toons/truth.py, with the networks that come with the package: the ideal edit scores best, no edit scores nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coral_jax.domains import load_domain
from coral_jax.runtime.numerics import key_of
from coral_jax.toons.faces import Z_DIM, faces_from_z, has, with_attribute, without_attribute
from coral_jax.toons.renderer import render
from coral_jax.toons.truth import HELD_OUT_SEED, held_out, measure, measure_removal, score

COUNT = 40


@pytest.fixture(scope="module")
def toons():
    return load_domain("toons")


def test_held_out_faces_lack_every_attribute_asked_for(toons):
    asked = held_out(toons, "purple hair and glasses", COUNT)
    faces = faces_from_z(asked.z)
    assert asked.attributes == ["purple_hair", "glasses"]
    assert not np.asarray(has(faces, "purple_hair") | has(faces, "glasses") | has(faces, "bald")).any()
    assert asked.region.shape == (COUNT, 64, 64, 1)
    assert 0.05 < float(asked.region.mean()) < 0.9


def test_a_prompt_outside_the_grammar_has_no_truth(toons):
    assert measure(toons, "a hippie", lambda w_plus: None) is None


@pytest.mark.parametrize("prompt", ["happy", "blue eyes", "mohawk hairstyle", "lipstick and glasses"])
def test_the_renderers_own_edit_is_ideal(toons, prompt):
    asked = held_out(toons, prompt, COUNT)
    before = jax.jit(faces_from_z)(asked.z)
    after = jax.jit(lambda faces: functools.reduce(with_attribute, asked.attributes, faces))(before)
    result = score(toons.classifier(), toons.identity, asked, render(before)[0], render(after)[0])
    assert result["success"] >= 0.9
    assert result["leak"] < 0.01
    assert result["drift"] < 0.06
    assert result["identity"] > 0.8
    assert result["distance"] == pytest.approx(0, abs=1e-4)


def test_no_edit_succeeds_rarely_and_leaks_nothing(toons):
    draw = jax.jit(lambda generator, w_plus: (generator.synthesis(w_plus),) * 2)
    result = measure(toons, "beard", lambda w_plus: draw(toons.generator, w_plus), COUNT)
    assert result["success"] <= 0.1
    assert result["leak"] == 0 and result["drift"] == 0
    assert result["identity"] == pytest.approx(1, abs=1e-5)
    assert result["distance"] == pytest.approx(1, abs=1e-5)


def test_change_outside_the_region_is_leak(toons):
    asked = held_out(toons, "beard", COUNT)
    image = jax.jit(lambda g, z: g.synthesis(g.broadcast(g.mapping(z))))(toons.generator, asked.z)
    result = score(toons.classifier(), toons.identity, asked, image, image + 0.1 * (1 - asked.region))
    assert result["leak"] == pytest.approx(1)
    result = score(toons.classifier(), toons.identity, asked, image, jnp.where(asked.region > 0, -image, image))
    assert result["leak"] == 0


def test_the_renderers_own_removal_is_ideal(toons):
    """Drawn from the codes that `measure_removal` gives, whose faces are those of the same seed that have the attribute."""
    seen = []

    def draw(w_plus):
        z = jax.random.normal(key_of(HELD_OUT_SEED), (COUNT * 8, Z_DIM))
        faces = faces_from_z(z)
        rows = np.flatnonzero(has(faces, "curly_hair"))[:COUNT]
        before = jax.tree.map(lambda values: values[rows], faces)
        after = without_attribute(before, "curly_hair")
        seen.append((len(w_plus), np.asarray(has(after, "curly_hair")).any()))
        return render(before)[0], render(after)[0]

    found = measure_removal(toons, "curly hair", draw, COUNT)
    assert seen == [(COUNT, False)]
    assert found["removed"] >= 0.9 and found["leak"] < 0.01 and found["drift"] < 0.06
    assert found["distance"] == pytest.approx(0, abs=1e-4)
    assert found["now"]["short"] + found["now"]["long"] >= 0.9 and sum(found["now"].values()) == pytest.approx(1)


@pytest.mark.parametrize("prompt", ["a hippie", "blue eyes", "happy and makeup"])
def test_what_has_no_plain_opposite_cannot_be_taken_away(toons, prompt):
    assert measure_removal(toons, prompt, lambda w_plus: None, COUNT) is None
