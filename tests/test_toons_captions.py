"""toons/captions.py: captions say what they should, and prompts are read back."""

import re

import numpy as np
import pytest

from coral_jax.toons.captions import PHRASES, WORDS, caption, parse
from coral_jax.toons.faces import ATTRIBUTES


def test_captions_of_up_to_three_attributes_are_read_back():
    random = np.random.default_rng(0)
    names, texts = list(ATTRIBUTES), set()
    for _ in range(600):
        asked = list(random.choice(names, random.integers(1, 4), replace=False))
        text = caption(asked, random)
        texts.add(text)
        assert set(parse(text)) == set(asked), text
    assert len(texts) > 500
    assert {word for text in texts for word in re.findall(r"\w+", text)} == WORDS


@pytest.mark.parametrize("name", PHRASES)
def test_every_phrase_is_read_as_its_attribute(name):
    for phrase in PHRASES[name]:
        assert parse(phrase.removeprefix("=")) == [name]


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("Surprised", ["surprised"]),
        ("mohawk hairstyle", ["mohawk"]),
        ("long curly hair", ["long_hair", "curly_hair"]),
        ("curly hair and lipstick", ["curly_hair", "lipstick"]),
        ("makeup and afro hairstyle", ["makeup", "afro"]),
        ("a happy person with blue eyes and a beard", ["happy", "blue_eyes", "beard"]),
        ("unhappy", ["sad"]),
    ],
)
def test_prompts_of_the_paper_are_read(prompt, names):
    assert parse(prompt) == names


@pytest.mark.parametrize("prompt", ["hippie", "a face", "purple", "happy zebra", "not happy"])
def test_what_the_grammar_does_not_say_has_no_truth(prompt):
    assert parse(prompt) is None
