"""The four CORAL methods as choices of parts."""

import jax
import pytest
from tiny import generator

from coral_jax.editors import GlobalDirection, LatentMapper
from coral_jax.methods import METHODS, get_method, make_trainables
from coral_jax.regions import AttentionNetwork, SegmentSelection


@pytest.fixture(scope="module")
def network():
    return generator()


@pytest.mark.parametrize(
    ("name", "editor", "selector"),
    [
        ("segment_global", GlobalDirection, SegmentSelection),
        ("segment_mapper", LatentMapper, SegmentSelection),
        ("attention_global", GlobalDirection, AttentionNetwork),
        ("attention_mapper", LatentMapper, AttentionNetwork),
    ],
)
def test_method_has_the_parts_it_names(network, name, editor, selector):
    method = get_method(name)
    trainables = make_trainables(method, network, 5, jax.random.key(0))
    assert type(trainables.editor) is editor
    assert type(trainables.selector) is selector
    # Equation 6 has no smoothness term, equation 7 has.
    assert ("tv" in method.terms) == (selector is AttentionNetwork)
    assert set(method.terms) >= {"clip", "l2", "identity", "area"}


def test_all_methods_are_tested():
    assert sorted(METHODS) == ["attention_global", "attention_mapper", "segment_global", "segment_mapper"]


def test_unknown_method_lists_the_names():
    with pytest.raises(ValueError, match="unknown method 'segments'; choose one of segment_global, segment_mapper"):
        get_method("segments")


def test_segment_method_without_segmenter_names_the_others(network):
    with pytest.raises(ValueError, match="choose one of attention_global, attention_mapper"):
        make_trainables(get_method("segment_global"), network, None, jax.random.key(0))


def test_key_decides_the_start(network):
    def start(seed):
        return jax.tree.leaves(make_trainables(get_method("attention_global"), network, None, jax.random.key(seed)))

    assert all((a == b).all() for a, b in zip(start(0), start(0), strict=True))
    assert any((a != b).any() for a, b in zip(start(0), start(1), strict=True))
