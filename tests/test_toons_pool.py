"""Exaggerated faces: where an edit goes that goes too far, or backwards."""

import jax
import numpy as np
import pytest

from coral_jax import weights
from coral_jax.domains import EMBEDDED
from coral_jax.toons.faces import GROUPS, Z_DIM, faces_from_z, mix, numbers
from coral_jax.toons.pool import exaggerate, mixed, shuffled

COUNT = 2048


@pytest.fixture(scope="module")
def faces():
    return exaggerate(COUNT, 0)


@pytest.fixture(scope="module")
def moved(faces):
    """(numbers of the faces, numbers as they are to be drawn)."""
    return jax.jit(lambda faces: (numbers(mix(*map(faces_from_z, faces.z))), faces.numbers()))(faces)


def test_a_third_stays_as_it_is(faces, moved):
    still = faces.beyond == 0
    assert 0.25 < still.mean() < 0.42 and faces.beyond.max() < 2
    for name, before in moved[0].items():
        np.testing.assert_allclose(moved[1][name][still], before[still], atol=1e-6, err_msg=name)


def test_numbers_go_on_as_far_as_faces_have_them(faces, moved):
    before, after = moved
    for name in before:
        least, most = (np.asarray(end(before[name], axis=0)) for end in (np.min, np.max))
        assert np.all(np.asarray(after[name]) >= least) and np.all(np.asarray(after[name]) <= most), name
    expression = faces_from_z(faces.z[0]).category["expression"], faces_from_z(faces.start[0]).category["expression"]
    neutral, happy = GROUPS["expression"].index("neutral"), GROUPS["expression"].index("happy")
    reversed_smile = (expression[0] == neutral) & (expression[1] == happy) & (faces.beyond > 0.5)
    assert reversed_smile.sum() >= 3
    assert np.all(after["curve"][reversed_smile] < 0) and np.all(after["opening"][reversed_smile] == 0)


def test_codes_move_as_numbers_do(faces):
    generator = weights.load(EMBEDDED["toons"] / "generator.safetensors")
    some = faces.rows(slice(0, 16))
    here, there = (jax.vmap(generator.mapping)(z) for z in (some.z, some.start))
    expected = mixed(generator, *here) + some.beyond[:, None, None] * (mixed(generator, *here) - mixed(generator, *there))
    np.testing.assert_allclose(some.codes(generator), expected, atol=1e-5)
    assert some.z.shape == (2, 16, Z_DIM)


def test_shuffled_gives_everyone_once_a_round():
    rounds = shuffled(10, 4, 0)
    first, second = (np.concatenate([next(rounds), next(rounds)]) for _ in range(2))
    assert len(set(first)) == len(set(second)) == 8 and set(first) <= set(range(10))
    assert list(first) != list(second)
