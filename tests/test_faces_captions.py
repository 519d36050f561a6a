"""faces/captions.py: captions say what they should, and prompts are read back."""

import re

import numpy as np
import pytest

from coral_jax.faces.captions import PHRASES, VOCABULARY, WORDS, caption, parse, wordings


def test_captions_of_up_to_three_attributes_are_read_back_and_hold_known_words_only():
    random = np.random.default_rng(0)
    for _ in range(600):
        asked = list(random.choice(VOCABULARY, random.integers(1, 4), replace=False))
        text = caption(asked, random)
        assert set(parse(text)) == set(asked), text
        assert set(re.findall(r"\w+", text)) <= WORDS


@pytest.mark.parametrize("name", PHRASES)
def test_every_phrase_is_read_as_its_attribute(name):
    for phrase in PHRASES[name]:
        assert parse(phrase.removeprefix("=")) == [name]


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("Surprised", ["surprised"]),
        ("long purple hair", ["long_hair", "purple_hair"]),
        ("smiling with teeth", ["teeth"]),
        ("blond hair and lipstick", ["blond_hair", "lipstick"]),
        ("an old man with a beard", ["old", "man", "beard"]),
        ("eyes closed", ["eyes_closed"]),
        ("blue eyes and blue hair", ["blue_eyes", "blue_hair"]),
    ],
)
def test_prompts_are_read(prompt, names):
    assert parse(prompt) == names


@pytest.mark.parametrize("prompt", ["hippie", "a face", "purple", "happy zebra", "not happy", "curly hair", "makeup"])
def test_what_the_vocabulary_lacks_is_not_read(prompt):
    assert parse(prompt) is None


def test_wordings_differ_in_what_is_asked_only():
    asked, any_face = wordings("glasses")
    assert "a photo of a person with glasses" in asked
    assert [text.removesuffix(" with glasses") for text in asked] == any_face
