"""The committed networks of faces fit one another and say what they should; the generator is the user's download."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coral_jax import domains, weights
from coral_jax.faces import captions, train_clip, train_identity
from coral_jax.faces.train_segmenters import SEGMENTS
from coral_jax.tokenizer import Tokenizer

FOLDER = Path(domains.__file__).parent / "faces" / "weights"
CHANNELS = {9: (64, 512), 11: (128, 256)}  # of MobileStyleGAN-FFHQ's layers that the segmenters read


def test_the_description_is_complete_but_for_the_generator(tmp_path):
    names = {path.name for path in FOLDER.iterdir()}
    description = json.loads((FOLDER / "domain.json").read_text())
    assert {"LICENSE", "clip_held_out.json", *domains.frozen_files(description)} - {"generator.safetensors"} <= names
    for name in names | {"generator.safetensors"}:  # the program reads it once a generator lies there
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes() if name in names else b"")
    assert domains._read_description(tmp_path) == description
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 15e6


@pytest.fixture(scope="module")
def clip():
    return weights.load(FOLDER / "clip.safetensors")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(FOLDER / "tokenizer.json", train_clip.CONTEXT)


def test_clip_and_tokenizer_are_those_of_the_code(clip, tokenizer):
    assert clip.config == train_clip.config(tokenizer.vocab_size)
    ids = tokenizer([" ".join(sorted(captions.WORDS)[:20])])
    assert ids.max() < clip.config.vocab_size
    for word in captions.WORDS:  # a word of its own each: none is spelt in pieces
        assert np.count_nonzero(tokenizer([word])) == 3, word


def test_synonyms_are_nearer_to_one_another_than_to_other_words(clip, tokenizer):
    texts = [phrase.removeprefix("=") for group in captions.PHRASES.values() for phrase in group]
    owner = np.array([name for name, group in captions.PHRASES.items() for _ in group])
    features = np.asarray(jax.jit(lambda clip, ids: clip.encode_text(ids))(clip, tokenizer(texts)))
    features = features / np.linalg.norm(features, axis=-1, keepdims=True)
    near = features @ features.T - 2 * np.eye(len(texts))
    assert np.mean(owner[near.argmax(axis=1)] == owner) > 0.9


def test_every_word_of_the_vocabulary_has_its_auc_by_the_clip_that_is_here():
    table = json.loads((FOLDER / "clip_held_out.json").read_text())
    assert table.pop("weights_sha256") == weights.fingerprint(FOLDER / "clip.safetensors")
    assert table["recoloured"].keys() == set(captions.VOCABULARY)
    assert all(np.mean([value[0] for value in values.values()]) >= 0.95 for values in table.values())
    assert all(value[0] >= 0.85 for values in table.values() for value in values.values())


def test_the_documentation_lists_the_vocabulary():
    text = (Path(__file__).parents[1] / "docs" / "faces.md").read_text()
    section = text[text.index("## What its CLIP knows") : text.index("## How its networks")].lower()
    for word in set(re.findall(r"\w+", " ".join(group[0] for group in captions.PHRASES.values()))) - {"childlike"}:
        assert word in section, word


@pytest.mark.parametrize(("name", "segments"), [("mixture", 5), ("parts", len(SEGMENTS))])
def test_segmenters_read_the_generators_features(name, segments):
    segmenter = weights.load(FOLDER / f"{name}.safetensors")
    assert dict(segmenter.config.layers) == {layer: channels for layer, (_, channels) in CHANNELS.items()}
    random = np.random.default_rng(0)
    features = {
        layer: jnp.asarray(random.standard_normal((1, size, size, channels)).astype(np.float32))
        for layer, (size, channels) in CHANNELS.items()
    }
    found = jax.jit(lambda segmenter, features: segmenter.segment(features))(segmenter, features)
    assert found.shape == (1, 128, 128, segments)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)


def test_identity_is_that_of_the_code_and_sees_no_more_than_a_face():
    identity = weights.load(FOLDER / "identity.safetensors")
    assert identity.config == train_identity.IDENTITY
    image = np.random.default_rng(0).uniform(-1, 1, (1, 256, 256, 3)).astype(np.float32)
    framed = image.copy()
    framed[:, :30] = framed[:, 230:] = 1
    embed = jax.jit(lambda identity, images: identity.embed(images))
    one, same = embed(identity, image)[0], embed(identity, framed)[0]
    np.testing.assert_allclose(one, same, atol=1e-5)
    assert float(one @ embed(identity, -image)[0]) < 0.99
