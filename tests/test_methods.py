"""Methods as choices of parts."""

import jax
import pytest
from tiny import generator

from coral_jax.baselines.stylespace import ChannelSelection, StyleDirection
from coral_jax.blend import single_layer_of
from coral_jax.config import make, resolve
from coral_jax.editors import FaceDeltas, GlobalDirection, LatentMapper, LevelsMapper
from coral_jax.evaluation.suites import SUITES
from coral_jax.methods import ABLATIONS, AUTHORS, EDITORS, METHODS, STYLE_EDITORS, get_method, make_trainables
from coral_jax.optimisers import OPTIMISERS
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
        ("feat_7", LatentMapper, AttentionNetwork),
        ("styleclip_mapper", LevelsMapper, type(None)),
        ("styleclip_optimization", FaceDeltas, type(None)),
        ("styleclip_global", ChannelSelection, type(None)),
        ("stylemc", StyleDirection, type(None)),
    ],
)
def test_method_has_the_parts_it_names(network, name, editor, selector):
    method = get_method(name)
    trainables = make_trainables(method, network, 5, jax.random.key(0), faces=3)
    assert type(trainables.editor) is editor
    assert type(trainables.selector) is selector
    # Equation 6 has no smoothness term, equation 7 has; without masks there is neither area nor smoothness.
    assert ("tv" in method.terms) == (selector is AttentionNetwork)
    assert ("area" in method.terms) == (trainables.selector is not None)
    assert set(method.terms) >= {"clip", "identity"}


def test_every_part_is_known():
    for name, method in (METHODS | ABLATIONS).items():
        assert name == method.name and method.editor in EDITORS | STYLE_EDITORS and method.optimiser in OPTIMISERS
        assert method.l2 in ("sum", "mean", None) and (method.layer is not None) == (method.drawing == "once")


def test_codes_and_masked_layers_of_methods(network):
    layers = {name: get_method(name).masked_layers(network) for name in METHODS}
    assert layers["attention_mapper"] == (1, 2, 3, 4, 5)
    assert (layers["feat_7"], layers["feat_13"], layers["styleclip_mapper"]) == ((2,), (4,), ())
    assert [get_method(name).edited_codes(network) for name in ("segment_global", "feat_13", "styleclip_mapper")] == [5, 4, 6]


def test_the_layer_of_a_single_blending_is_scaled():
    class Sized:
        def __init__(self, count):
            self.layers = range(count)

    assert [single_layer_of(Sized(17), layer) for layer in (7, 13)] == [7, 13]
    assert [single_layer_of(Sized(9), layer) for layer in (7, 13)] == [4, 7]


def test_authors_settings_come_before_the_domains_general_ones_and_after_its_own():
    general = {"steps": 7, "lambda_l2": 9.0, "methods": {"styleclip_mapper": {"lambda_l2": 0.5}}}
    step = resolve(make("happy", "method=styleclip_mapper"), general).step
    assert (step.steps, step.batch_size, step.lambda_l2) == (AUTHORS["styleclip_mapper"]["steps"], 2, 0.5)
    assert resolve(make("happy", "method=styleclip_mapper,batch_size=5"), general).step.batch_size == 5
    assert resolve(make("happy", "method=feat_7"), general).step.batch_size == 3


def test_a_method_of_single_faces_takes_those_of_the_sheet():
    assert resolve(make("happy", "method=styleclip_optimization,sheet_seeds=3-7"), {}).step.batch_size == 5


def test_suites_have_every_method_and_ablation():
    assert set(SUITES["table1"].methods) == set(METHODS)
    assert set(SUITES["ablations"].methods) > set(ABLATIONS)


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
