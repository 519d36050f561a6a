"""Region selectors: their masks by hand, thresholds, and what each reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import generator, largest, w_plus

from coral_jax.baselines.feat import LastAttention
from coral_jax.blend import original_synthesis
from coral_jax.regions import AttentionNetwork, SegmentSelection, resize_map

ALL = (1, 2, 3, 4, 5)  # layers of the tiny generator
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def network():
    return generator()


@pytest.fixture(scope="module")
def features(network):
    """Of the original images, by layer."""
    return jax.jit(original_synthesis)(network, w_plus()).features


def halves(size=16):
    """Segment 0 on the left, segment 1 on the right."""
    left = np.zeros((1, size, size, 2), np.float32)
    left[:, :, : size // 2, 0] = left[:, :, size // 2 :, 1] = 1.0
    return jnp.asarray(left)


def test_segment_selection_paints_each_segment_with_its_confidence(network):
    selector = SegmentSelection(network, ALL, nnx.Rngs(0), segments=2)
    assert selector.logits.shape == (2, 5) and selector.layers == ALL and selector.needs_segments
    np.testing.assert_array_equal(selector.confidence, 0.5)
    selector.logits[...] = jnp.float32(RNG.standard_normal((2, 5)))
    masks = selector({}, halves())
    assert [mask.shape for mask in masks] == [(1, r, r) for r in (4, 8, 8, 16, 16)]
    for i, mask in enumerate(masks):
        middle = mask.shape[2] // 2
        np.testing.assert_allclose(mask[:, :, :middle], selector.confidence[0, i], rtol=1e-6)
        np.testing.assert_allclose(mask[:, :, middle:], selector.confidence[1, i], rtol=1e-6)


def test_segment_threshold_is_on_the_confidence(network):
    """A segment that covers a part of a coarse pixel is kept there if its confidence is."""
    selector = SegmentSelection(network, ALL, nnx.Rngs(0), segments=2)
    selector.logits[...] = jnp.asarray([[3.0] * 5, [1.0] * 5])  # 0.95 and 0.73
    segments = halves(16).at[:, :, 8, 0].set(1.0).at[:, :, 8, 1].set(0.0)
    mask = selector({}, segments, 0.85)[0]
    np.testing.assert_allclose(mask[0, 0], np.array([1, 1, 0.25, 0]) * selector.confidence[0, 0], rtol=1e-5)


def test_segment_selection_refuses_another_segmenter(network):
    with pytest.raises(ValueError, match="has 2 segments but e was made for 3"):
        SegmentSelection(network, ALL, nnx.Rngs(0), segments=3)({}, halves())


@pytest.mark.parametrize("resolution", [4, 16, 32])
def test_resized_maps_still_sum_to_one(resolution):
    segments = jax.nn.softmax(jnp.float32(RNG.standard_normal((2, 16, 16, 5))))
    resized = resize_map(segments, resolution)
    np.testing.assert_allclose(resized.sum(axis=-1), 1.0, rtol=1e-5)
    if resolution == 4:
        np.testing.assert_allclose(resized[:, 1, 2], segments[:, 4:8, 8:12].mean(axis=(1, 2)), rtol=1e-5)


def test_attention_mask_is_two_convolutions_of_its_own_layer(network, features):
    attention = AttentionNetwork(network, ALL[:4], nnx.Rngs(0))
    assert attention.layers == (1, 2, 3, 4) and attention.confidence is None and not attention.needs_segments
    masks = attention(features)
    assert [mask.shape for mask in masks] == [(2, r, r) for r in (4, 8, 8, 16)]
    head, x = attention.heads[1], np.asarray(features[2])
    hidden = np.maximum(x @ np.asarray(head.first_kernel[...]) + np.asarray(head.first_bias[...]), 0)
    assert hidden.shape[-1] == 32
    logits = hidden @ np.asarray(head.last_kernel[...]) + float(head.last_bias[...])
    np.testing.assert_allclose(masks[1], 1 / (1 + np.exp(-logits)), rtol=1e-4)
    other = dict(features) | {2: features[2] + 1.0}
    changed = attention(other)
    assert [largest(a, b) > 0 for a, b in zip(masks, changed, strict=True)] == [False, True, False, False]


def test_attention_starts_undecided_but_not_uniform(network, features):
    for mask in AttentionNetwork(network, ALL, nnx.Rngs(0))(features):
        assert abs(float(mask.mean()) - 0.5) < 0.15
        assert float(mask.std()) > 1e-3


def test_attention_threshold(network, features):
    attention = AttentionNetwork(network, ALL, nnx.Rngs(0))
    tau = float(np.median(attention(features)[1]))
    masks, cuts = attention(features), attention(features, None, tau)
    for mask, cut in zip(masks, cuts, strict=True):
        np.testing.assert_array_equal(cut, np.where(np.asarray(mask) >= tau, mask, 0.0))
    assert float((cuts[1] == 0).mean()) == 0.5


def test_a_single_head_reads_the_last_of_the_edited_layers(network, features):
    attention = LastAttention(network, (1, 2, 3, 4), nnx.Rngs(0))
    assert attention.layers == (4,) and len(attention.heads) == 1
    (mask,) = attention(features)
    np.testing.assert_array_equal(mask, attention.heads[0](features[4]))
    (changed,) = attention({4: features[4] + 1.0})  # no other layer is asked for
    assert mask.shape == (2, 16, 16) and largest(mask, changed) > 0


def test_selectors_of_some_layers_have_masks_of_these_alone(network, features):
    some = (2, 4)
    masks = AttentionNetwork(network, some, nnx.Rngs(0))(features)
    assert [mask.shape[1] for mask in masks] == [8, 16]
    selector = SegmentSelection(network, some, nnx.Rngs(0), segments=2)
    assert selector.logits.shape == (2, 2) and [mask.shape[1] for mask in selector({}, halves())] == [8, 16]
