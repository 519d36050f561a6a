"""All that speaks to a generator, on one of another shape: two codes in a layer, a read-out at the end, no skip images."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_domain, run_config
from flax import nnx
from made_up import MadeUp, MadeUpConfig
from tiny import build, copied, frozen, largest, step_alone

from coral_jax import weights
from coral_jax.artifact import load_edit
from coral_jax.baselines.feat import blend_once, layers_up_to
from coral_jax.baselines.stylespace import style_widths
from coral_jax.blend import blend, blended_synthesis, edited_layers, original_synthesis
from coral_jax.config import Settings
from coral_jax.domains import load_domain
from coral_jax.editors import GlobalDirection, LatentMapper, groups
from coral_jax.global_directions import relevance
from coral_jax.methods import ABLATIONS, METHODS, get_method
from coral_jax.models import load_generator
from coral_jax.models.precision import cast
from coral_jax.models.segmenter import MixtureSegmenter, MixtureSegmenterConfig
from coral_jax.optimisers import Channels
from coral_jax.step import apply_edit, init_state
from coral_jax.training.loop import proxy, train

RNG = np.random.default_rng(0)
MIXTURE = MixtureSegmenterConfig(layers=((3, 4), (5, 4)), resolution=8, segments=3, components=4)


@pytest.fixture(scope="module")
def network():
    return MadeUp(MadeUpConfig(), nnx.Rngs(1))


@pytest.fixture(scope="module")
def codes():
    return jnp.float32(RNG.standard_normal((2, 8, 5)))


@pytest.fixture
def known(monkeypatch):
    """Files may name the made-up generator."""
    monkeypatch.setitem(weights.ARCHITECTURES, "made_up", ("made_up", "MadeUp", "MadeUpConfig"))


def masks(network, value=None, layers=None):
    shapes = [(2, layer.resolution, layer.resolution) for layer in network.layers[:layers]]
    return [jnp.float32(RNG.uniform(size=shape)) if value is None else jnp.full(shape, value) for shape in shapes]


def test_what_follows_from_its_layers(network):
    assert (network.n_latent, network.z_dim, network.w_dim, network.size) == (8, 6, 5, 32)
    assert [layer.rows for layer in network.layers] == [(0,), (1, 2), (3,), (4, 5), (6,)]
    assert [network.codes_read(range(1, last + 1)) for last in range(1, 6)] == [1, 3, 4, 6, 7]
    assert [layer.index for layer in network.layers_reading(4)] == [1, 2, 3]
    with pytest.raises(ValueError, match=r"delta edits 2 codes; .*\[1, 3, 4, 6, 7\]"):  # would edit half of layer 2
        network.layers_reading(2)
    with pytest.raises(ValueError, match="delta edits 8 codes"):
        network.layers_reading(8)


def test_edited_layers_and_groups_follow_resolutions(network, monkeypatch):
    assert edited_layers(network) == (1, 2, 3, 4, 5)
    monkeypatch.setattr("coral_jax.blend.EDITED_RESOLUTION", 8)
    assert edited_layers(network) == (1, 2, 3)
    assert layers_up_to(network, 7) == (1, 2)
    # Layers 1 to 4 read features of less than 16 px, layer 5 of 16 px.
    assert groups(network, 7) == (("coarse", 0, 6), ("medium", 6, 7))
    deep = build(lambda: MadeUp(MadeUpConfig(blocks=5), nnx.Rngs(0)))
    assert groups(deep, deep.codes_read([11])) == (("coarse", 0, 6), ("medium", 6, 12), ("fine", 12, 16))


def test_editors_move_the_codes_that_the_layers_read(network, codes):
    for kind in (GlobalDirection, LatentMapper):
        assert kind(network, (1, 2, 3), nnx.Rngs(0))(codes).shape == (2, 4, 5)
    assert style_widths(network) == (4,) * 7  # a style for every row but the read-out's


def equation_1(network, codes, delta, given):
    """One path after the other, exactly as the paper writes it."""
    x = network.constant(2)
    for layer, mask in zip(network.layers, given, strict=True):
        moved = [codes[:, row] + delta[None, row] for row in layer.rows]
        edited = network.layer(layer, x, moved)
        unedited = network.layer(layer, x, [codes[:, row] for row in layer.rows])
        x = mask[..., None] * edited + (1 - mask[..., None]) * unedited
    return network.rgb(network.layers[-1], x, codes[:, 7], None)


def test_equation_1(network, codes):
    delta, given = jnp.float32(RNG.standard_normal((7, 5))), masks(network)
    star, tilde = jax.jit(blended_synthesis)(network, codes, delta, [mask[..., None] for mask in given])
    np.testing.assert_allclose(star, equation_1(network, codes, delta, given), rtol=1e-4, atol=1e-4)
    everywhere = network.synthesis(codes + jnp.concatenate([delta, jnp.zeros((1, 5))])[None])
    np.testing.assert_allclose(tilde, everywhere, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layers", [3, 5])
def test_masks_of_zero_give_the_original_exactly(network, codes, layers):
    delta = jnp.float32(RNG.standard_normal((network.codes_read([layers]), 5)))
    drawn, original = jax.jit(lambda n, c: (blend(n, o := original_synthesis(n, c), delta, masks(n, 0.0, layers)), o.image))(
        network, codes
    )
    np.testing.assert_array_equal(drawn.image, original)
    assert largest(drawn.full, original) > 0.01


def test_feats_single_blending_needs_no_image_in_between(network, codes):
    delta = jnp.float32(RNG.standard_normal((4, 5)))
    one = [jnp.ones((2, 8, 8))]
    drawn = jax.jit(lambda n, c: blend_once(n, original_synthesis(n, c), delta, one))(network, codes)
    whole = network.synthesis(codes + jnp.concatenate([delta, jnp.zeros((4, 5))])[None])
    np.testing.assert_allclose(drawn.image, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*METHODS, *ABLATIONS])
def test_every_method_takes_steps_and_applies(network, codes, name):
    method = get_method(name)
    segmenter = build(lambda: MixtureSegmenter(MIXTURE, nnx.Rngs(0)), 3)
    networks = frozen()._replace(generator=network, segmenter=segmenter, faces=codes)
    if method.editor.from_text:
        rows = tuple(jnp.float32(RNG.standard_normal(width)) for width in style_widths(network))
        networks = networks._replace(channels=Channels(rows, tuple(map(jnp.ones_like, rows))))
    settings = Settings(name, batch_size=2, learning_rate=0.5, steps=4)
    first = init_state(settings, networks, jax.random.key(0))
    state = copied(first)
    for _ in range(3):
        state, metrics = step_alone(state, networks, jax.random.key(1), settings)
    assert all(np.isfinite(value).all() for value in metrics.values())
    before, after = (jax.tree.leaves(each.trainables.editor) for each in (first, state))
    assert any(largest(a, b) > 0 for a, b in zip(before, after, strict=True))
    original, edited, drawn_masks = jax.jit(apply_edit, static_argnums=0)(
        method, networks, state.trainables, codes, jnp.float32(1.0), jnp.float32(0.0)
    )
    assert original.shape == edited.shape == (2, 32, 32, 3) and largest(original, edited) > 0
    selector = state.trainables.selector
    sizes = [] if selector is None else [network.layers[number - 1].resolution for number in selector.layers]
    assert [mask.shape for mask in drawn_masks] == [(2, size, size) for size in sizes]


def test_losses_may_see_a_lower_image(network, monkeypatch):
    monkeypatch.setattr("coral_jax.blend.EDITED_RESOLUTION", 8)
    method = get_method("attention_mapper")
    lower = proxy(network, method, 8)
    assert [layer.resolution for layer in lower.layers] == [4, 8, 8] and lower.n_latent == 5
    with pytest.raises(ValueError, match="needs 8 px"):
        proxy(network, method, 4)


def test_files_say_which_generator_they_hold(network, known, tmp_path):
    weights.save(tmp_path / "generator.safetensors", network)
    loaded = load_generator(tmp_path / "generator.safetensors")
    assert isinstance(loaded, MadeUp) and loaded.config == network.config
    for ours, theirs in zip(jax.tree.leaves(network), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    half = cast(loaded, "bfloat16")
    assert half.input.dtype == jnp.bfloat16 and half.convs[0].kernel.dtype == jnp.bfloat16
    assert half.modulations[0].kernel.dtype == half.mapping.kernel.dtype == jnp.float32


@pytest.fixture
def made_domain(network, known, tmp_path):
    """A domain whose generator is the made-up one."""
    folder = make_domain(tmp_path / "weights" / "odd")
    weights.save(folder / "generator.safetensors", network)
    weights.save(folder / "mixture.safetensors", build(lambda: MixtureSegmenter(MIXTURE, nnx.Rngs(0)), 3))
    description = json.loads((folder / "domain.json").read_text())
    description["segmenters"] = {"mixture": "mixture.safetensors"}
    (folder / "domain.json").write_text(json.dumps(description))
    return folder.parent


def test_a_domain_with_it_trains_and_edits(made_domain, tmp_path):
    config = run_config(made_domain)
    config.domain = "odd"
    summary = train(config, tmp_path / "run")
    assert [row["layer"] for row in summary["layers"]] == [1, 2, 3, 4, 5]
    assert all(row["delta_norm"] > 0 for row in summary["layers"])
    edit = load_edit(tmp_path / "run", made_domain)
    original, edited, drawn = edit.apply(np.zeros((3, 8, 5), np.float32))
    assert original.shape == (3, 32, 32, 3) and len(drawn) == 5


def test_converters_domain_takes_it(network, known, made_domain, tmp_path):
    from converters.domain import make_domain as convert

    made = made_domain / "odd"
    convert(
        "other", made / "generator.safetensors", made / "clip.safetensors", None, template="sketch", segmenter_fit=True,
        weights_dir=str(tmp_path / "out"),
    )  # fmt: skip
    domain = load_domain("other", tmp_path / "out")
    assert isinstance(domain.generator, MadeUp)
    assert domain.segmenter().config.layers == ((5, 4),)  # the last layer of 16 px, the only size that is segmented


def test_style_channels_of_a_layer_with_two_styles(made_domain, monkeypatch):
    monkeypatch.setattr(relevance, "wordings", lambda domain, prompt: ([prompt], ["a face"]))
    monkeypatch.setattr(relevance, "COUNT", 1000)
    domain = load_domain("odd", made_domain)
    found = relevance.channels_of(domain, "surprised")
    assert [len(row) for row in found.relevance] == [len(row) for row in found.sigma] == [4] * 7
    assert all(float(jnp.abs(row).max()) > 0 for row in found.relevance)
    again = relevance.channels_of(domain, "surprised")  # from the cache
    for row, other in zip(found.relevance, again.relevance, strict=True):
        np.testing.assert_array_equal(row, other)
