"""Methods as choices of parts."""

import jax
import pytest
from tiny import generator, w_plus

from coral_jax.baselines.feat import LastAttention, blend_once, layers_up_to
from coral_jax.baselines.ranger import RANGER
from coral_jax.baselines.styleclip import RAMPED_ADAM, FaceDeltas, LevelsMapper, draw_whole
from coral_jax.baselines.stylemc import STYLEMC
from coral_jax.baselines.stylespace import FROM_TEXT, ChannelSelection, StyleDirection, draw_styled
from coral_jax.blend import blend
from coral_jax.config import make, resolve
from coral_jax.editors import Editor, GlobalDirection, LatentMapper
from coral_jax.evaluation.suites import SUITES
from coral_jax.methods import ABLATIONS, AUTHORS, METHODS, get_method, make_trainables
from coral_jax.optimisers import ADAM, Optimiser
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
        ("feat_7", LatentMapper, LastAttention),
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
    terms = {term.name for term in method.terms}
    assert ("tv" in terms) == (selector in (AttentionNetwork, LastAttention))
    assert ("area" in terms) == (trainables.selector is not None)
    assert terms >= {"clip", "identity"}


def test_every_part_is_known():
    for name, method in (METHODS | ABLATIONS).items():
        assert name == method.name and get_method(name) is method
        assert issubclass(method.editor, Editor) and isinstance(method.optimiser, Optimiser) and callable(method.layers)
        assert method.region in (SegmentSelection, AttentionNetwork, LastAttention, None)
        assert (method.region is LastAttention) == (method.drawing is blend_once)
        assert (method.region is None) == (method.drawing in (draw_whole, draw_styled))
        assert (method.editor in (StyleDirection, ChannelSelection)) == (method.drawing is draw_styled)
        assert method.editor.from_text == (method.optimiser is FROM_TEXT)
        assert len({term.name for term in method.terms}) == len(method.terms)
        assert hash(method) == hash(get_method(name))  # the compiled step is found by it


def test_methods_learn_draw_and_sum_as_the_table_says():
    learn = {RANGER: ["styleclip_mapper"], RAMPED_ADAM: ["styleclip_optimization"], STYLEMC: ["stylemc"],
             FROM_TEXT: ["styleclip_global"]}  # fmt: skip
    for optimiser, names in learn.items():
        assert [name for name, method in METHODS.items() if method.optimiser is optimiser] == names
    assert sum(method.optimiser is ADAM for method in METHODS.values()) == 6
    assert [name for name, method in METHODS.items() if method.drawing is blend] == [
        "segment_global", "segment_mapper", "attention_global", "attention_mapper"
    ]  # fmt: skip
    assert [name for name, method in METHODS.items() if method.per_face] == ["styleclip_optimization"]
    assert [name for name, method in METHODS.items() if method.needs_segments] == ["segment_global", "segment_mapper"]
    assert {name for name, method in (METHODS | ABLATIONS).items() if not method.full} == {
        "styleclip_optimization", "styleclip_mapper", "styleclip_global", "stylemc", "without_full"
    }  # fmt: skip
    assert ABLATIONS["original_features"].drawing.keywords == {"original_features": True}
    assert ABLATIONS["edited_rgb"].drawing.keywords == {"edit_rgb": True}
    for name in ("original_features", "edited_rgb"):
        assert ABLATIONS[name].drawing.func is blend


def test_codes_and_masked_layers_of_methods(network):
    trainables = {name: make_trainables(METHODS[name], network, 5, jax.random.key(0)) for name in METHODS}
    layers = {name: None if made.selector is None else made.selector.layers for name, made in trainables.items()}
    assert layers["segment_global"] == layers["attention_mapper"] == (1, 2, 3, 4, 5)
    assert (layers["feat_7"], layers["feat_13"], layers["styleclip_mapper"]) == ((2,), (4,), None)
    assert {name: METHODS[name].layers(network) for name in ("feat_7", "feat_13", "stylemc", "styleclip_mapper")} == {
        "feat_7": (1, 2), "feat_13": (1, 2, 3, 4), "stylemc": (2, 3, 4, 5), "styleclip_mapper": (1, 2, 3, 4, 5)
    }  # fmt: skip
    moved = {"segment_global": 5, "feat_7": 2, "feat_13": 4, "styleclip_mapper": 6}
    assert {name: trainables[name].editor(w_plus()).shape[1] for name in moved} == moved


def test_the_layer_of_a_single_blending_is_scaled():
    class Sized:
        uncut = None

        def __init__(self, count):
            self.layers = range(count)

    assert [layers_up_to(Sized(17), layer) for layer in (7, 13)] == [tuple(range(1, 8)), tuple(range(1, 14))]
    assert [layers_up_to(Sized(9), layer) for layer in (7, 13)] == [(1, 2, 3, 4), (1, 2, 3, 4, 5, 6, 7)]
    assert layers_up_to(Sized(1), 7) == (1,)


def test_authors_settings_come_before_the_domains_general_ones_and_after_its_own():
    general = {"steps": 7, "lambda_l2": 9.0, "methods": {"styleclip_mapper": {"lambda_l2": 0.5}}}
    step = resolve(make("happy", "method=styleclip_mapper"), general).settings
    assert (step.steps, step.batch_size, step.lambda_l2) == (AUTHORS["styleclip_mapper"]["steps"], 2, 0.5)
    assert resolve(make("happy", "method=styleclip_mapper,batch_size=5"), general).settings.batch_size == 5
    assert resolve(make("happy", "method=feat_7"), general).settings.batch_size == 3


def test_a_method_of_single_faces_takes_those_of_the_sheet():
    assert resolve(make("happy", "method=styleclip_optimization,sheet_seeds=3-7"), {}).settings.batch_size == 5


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
