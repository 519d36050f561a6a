"""models/clip_conv.py and faces/train_clip.py: the tower for aligned pictures, and what it is trained on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coral_jax import weights
from coral_jax.faces import train_clip
from coral_jax.faces.captions import VOCABULARY, parse
from coral_jax.faces.recolour import PARTS, Prepared
from coral_jax.models.clip import CLIP, CLIPConfig
from coral_jax.tokenizer import Tokenizer
from coral_jax.worlds.fitting import fresh

TINY = CLIPConfig(
    image_size=16, patch_size=4, vision_width=8, vision_layers=0, vision_heads=1, vision_convs=(4, 6), text_width=8,
    text_layers=1, text_heads=2, embed_dim=8, context=train_clip.CONTEXT, vocab_size=900,
)  # fmt: skip


@pytest.fixture(scope="module")
def clip():
    return fresh(CLIP, TINY)


def test_a_convolutional_tower_keeps_places_apart(clip):
    images = np.zeros((2, 16, 16, 3), np.float32)
    images[0, :8, :8], images[1, 8:, 8:] = 1, 1
    first, second = clip.encode_image(jnp.asarray(images))
    assert first.shape == (8,) and float(jnp.abs(first - second).max()) > 1e-2


def test_a_convolutional_tower_is_this_sum(clip):
    pixels, tower = np.random.default_rng(0).standard_normal((1, 16, 16, 3)).astype(np.float32), clip.vision
    x = pixels[0]
    for conv, norm, size in zip(tower.convs, tower.norms, (5, 3), strict=True):
        pad = max(size - 2, 0)  # SAME, of a stride of 2
        padded, half = np.pad(x, ((pad // 2, pad - pad // 2),) * 2 + ((0, 0),)), len(x) // 2
        kernel = np.asarray(conv.kernel[...])
        places = [(2 * i, 2 * j) for i in range(half) for j in range(half)]
        y = np.stack([np.tensordot(padded[i : i + size, j : j + size], kernel, 3) for i, j in places])
        y = y.reshape(half, half, -1) + np.asarray(conv.bias[...])
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
        x = np.asarray(jax.nn.gelu(y * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])))
    y = x.ravel() @ np.asarray(tower.flat.kernel[...]) + np.asarray(tower.flat.bias[...])
    y = (y - y.mean()) / np.sqrt(y.var() + 1e-6)
    want = np.asarray(jax.nn.gelu(y)) @ np.asarray(tower.proj.kernel[...])
    np.testing.assert_allclose(clip.encode_pixels(jnp.asarray(pixels))[0], want, atol=1e-4)
    assert [patches.shape for patches in tower.patches(jnp.asarray(pixels))] == [(1, 64, 4), (1, 16, 6)]


def test_a_clip_with_convolutions_is_stored_and_read(clip, tmp_path):
    weights.save(tmp_path / "clip.safetensors", clip)
    again = weights.load(tmp_path / "clip.safetensors")
    assert again.config == TINY
    image = jnp.ones((1, 20, 20, 3))
    np.testing.assert_array_equal(again.encode_image(image), clip.encode_image(image))


def test_convolutions_that_do_not_make_the_patches_are_refused():
    with pytest.raises(ValueError, match="patch_size is 32; give 4, which 2 convolutions make"):
        CLIPConfig(vision_convs=(4, 6))


def _faces(count: int) -> Prepared:
    random = np.random.default_rng(0)
    true = random.random((count, len(VOCABULARY))) < 0.2
    return Prepared(
        random.integers(0, 255, (count, 16, 16, 3)).astype(np.uint8),
        random.integers(0, 255, (count, 16, 16, len(PARTS))).astype(np.uint8), true, random.random(true.shape) < 0.8,
    )  # fmt: skip


def test_captions_match_where_all_they_say_is_known_to_be_true():
    faces = _faces(6)
    texts, match, sure = train_clip.sample_captions(faces.true, faces.known, np.random.default_rng(1))
    assert [parse(text) for text in texts[: len(VOCABULARY)]] == [[name] for name in VOCABULARY]
    for text, matches, certain in zip(texts, match.T, sure.T, strict=True):
        columns = [VOCABULARY.index(name) for name in parse(text)]
        true, known = faces.true[:, columns], faces.known[:, columns]
        np.testing.assert_array_equal(matches, (true & known).all(axis=1))
        np.testing.assert_array_equal(certain, known.all(axis=1) | (~true & known).any(axis=1))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "tokenizer.json"
    train_clip.train_tokenizer(path)
    return Tokenizer(path, train_clip.CONTEXT)


def test_a_stopped_training_continues_as_if_it_had_not_stopped(tokenizer, tmp_path, monkeypatch):
    faces, whole = _faces(8), train_clip.batch
    monkeypatch.setattr(train_clip, "_SAVED", 1)
    arguments = (TINY, faces, tokenizer, tmp_path / "a", 3, 3, 1e-2)
    want = train_clip.train(*arguments)

    def stops(faces: Prepared, tokenizer: Tokenizer, step: int) -> tuple:
        if step == 2:
            raise KeyboardInterrupt
        return whole(faces, tokenizer, step)

    arguments = (*arguments[:3], tmp_path / "b", *arguments[4:])
    monkeypatch.setattr(train_clip, "batch", stops)
    with pytest.raises(KeyboardInterrupt):
        train_clip.train(*arguments)
    monkeypatch.setattr(train_clip, "batch", whole)
    found = weights.named_variables(train_clip.train(*arguments))
    before = weights.named_variables(fresh(CLIP, TINY))
    for name, variable in weights.named_variables(want).items():
        np.testing.assert_array_equal(found[name][...], variable[...], err_msg=name)
    assert any(not np.array_equal(found[name][...], before[name][...]) for name in found)

    steps = []
    monkeypatch.setattr(train_clip, "batch", lambda *arguments: steps.append(arguments[2]) or whole(*arguments))
    train_clip.train(TINY, _faces(9), *arguments[2:])  # of other faces: nothing of the checkpoint counts
    assert steps[0] == 0


def test_separation_counts_what_is_known(clip, tokenizer):
    faces = _faces(12)
    name, column = VOCABULARY[0], 0
    found = train_clip.separation(clip, tokenizer, faces, colours=False)
    known = faces.known[:, column]
    assert found[name][1:] == ((faces.true[:, column] & known).sum(), (~faces.true[:, column] & known).sum())
    assert 0 <= found[name][0] <= 1
