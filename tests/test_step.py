"""The training step on tiny networks: every method learns, only trainables move, draws depend on the step alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SEGMENTS, copied, frozen, largest, step_alone, w_plus

from coral_jax import losses, step
from coral_jax.baselines.stylespace import draw_styled, style_widths
from coral_jax.config import Settings
from coral_jax.methods import ABLATIONS, METHODS, get_method
from coral_jax.optimisers import Channels
from coral_jax.runtime.target import aimed_at
from coral_jax.step import (
    draw_z,
    edit_loss,
    find_deltas,
    init_state,
    jit_apply_edit,
    observe,
    train_step,
    w_plus_of,
)

KEY = jax.random.key(7)
LAMBDAS = {"l2": "lambda_l2", "identity": "lambda_id", "area": "lambda_area", "tv": "lambda_tv"}


@pytest.fixture(scope="module")
def domain():
    """Tiny networks, a prompt, and the faces of methods that edit each on its own."""
    return frozen()._replace(faces=w_plus())


def with_channels(method, domain):
    """The domain as a method wants it."""
    if method != "styleclip_global":
        return domain
    widths = style_widths(domain.generator)
    relevance = tuple(jnp.float32(np.random.default_rng(i).standard_normal(width)) for i, width in enumerate(widths))
    return domain._replace(channels=Channels(relevance, tuple(jnp.ones(width) for width in widths)))


def settings(method, **changes):
    if method == "stylemc":
        changes = {"learning_rate": 1.0, "steps": 4} | changes
    rate = {"learning_rate": 0.5 if method.endswith("mapper") else 0.02, "region_learning_rate": 0.02}
    if method == "styleclip_mapper":  # Ranger's epsilon holds it back
        rate["learning_rate"] = 150.0
    return Settings(**{"method": method, "batch_size": 2, "steps": 10, **rate, **changes})


def masked_layers(trainables):
    return () if trainables.selector is None else trainables.selector.layers


@pytest.fixture(scope="module", params=sorted(METHODS))
def run(request, domain):
    """A method, and its states and metrics over three steps on the same images (truncation 0 draws w_avg alone)."""
    chosen = settings(request.param, truncation=0.0)
    domain = with_channels(request.param, domain)
    states, metrics = [init_state(chosen, domain, jax.random.key(0))], []
    for _ in range(3):
        state, values = step_alone(copied(states[-1]), domain, KEY, chosen)
        states.append(state)
        metrics.append(values)
    return chosen, states, metrics


def test_two_steps_reduce_the_loss(run):
    chosen, _, metrics = run
    if chosen.method != "styleclip_global":  # which does not descend
        assert float(metrics[2]["loss/total"]) < float(metrics[0]["loss/total"])


def test_all_trainables_move_and_stay_finite(run):
    _, states, _ = run
    assert int(states[3].step) == 3
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(states[3]))
    trained = [jax.tree.leaves(state.trainables) for state in (states[0], states[3])]
    for before, after in zip(*trained, strict=True):
        assert largest(before, after) > 0


def test_a_step_keeps_every_type(run):
    """A weak type at the start would make the second step compile again."""
    _, states, _ = run
    for before, after in zip(jax.tree.leaves(states[0]), jax.tree.leaves(states[1]), strict=True):
        assert jax.typeof(before) == jax.typeof(after)
        assert not before.weak_type


def test_metrics_hold_every_term_and_layer(run, domain):
    chosen, states, (_, _, last) = run
    method, trainables = get_method(chosen.method), states[3].trainables
    layers = masked_layers(trainables)
    names = {f"loss/{term.name}" for term in method.terms} | {"loss/total", "clip_distance", "delta_norm"}
    assert set(last) == (names | {"area"} if layers else names)
    weights = {"clip": 1.0} | {term: getattr(chosen, field) for term, field in LAMBDAS.items()}
    total = sum(weights[term.name] * float(last[f"loss/{term.name}"]) for term in method.terms)
    np.testing.assert_allclose(last["loss/total"], total, rtol=1e-5)
    edited = 5 if method.drawing is draw_styled else 6 if not layers else max(layers)  # styles, all codes, or the edited ones
    assert last["delta_norm"].shape == (edited,)
    assert float(last["delta_norm"].min()) > 0 or method.name == "stylemc"  # which leaves 4 px alone
    if layers:
        assert last["area"].shape == (len(layers),)
        assert 0 < float(last["area"].min()) <= float(last["area"].max()) < 1


def test_alpha_scales_the_edit_of_every_method(run, domain):
    """Zero gives the original; masks that are off give it exactly."""
    chosen, states, _ = run
    method, trainables = get_method(chosen.method), states[3].trainables
    original, edited, masks = jit_apply_edit(method, domain, trainables, domain.faces, 1.0, 0.0)
    assert len(masks) == len(masked_layers(trainables))
    _, unmoved, _ = jit_apply_edit(method, domain, trainables, domain.faces, 0.0, 0.0)
    assert largest(original, edited) > 10 * largest(original, unmoved) and largest(original, unmoved) < 1e-5 * largest(original)
    if masks:
        _, untouched, _ = jit_apply_edit(method, domain, trainables, domain.faces, 1.0, 1.0)
        assert largest(original, untouched) == 0.0


def test_resumed_equals_uninterrupted(run, domain):
    """A state that went through numpy, as through a checkpoint, continues bit for bit."""
    chosen, states, _ = run
    saved = jax.tree.map(np.asarray, states[1])
    resumed, _ = step_alone(jax.tree.map(jnp.asarray, saved), with_channels(chosen.method, domain), KEY, chosen)
    for ours, theirs in zip(jax.tree.leaves(resumed), jax.tree.leaves(states[2]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_step_and_draw(name, domain):
    """Traced only: what they draw differently is tested with `blend`."""
    chosen = settings(name)
    state = jax.eval_shape(lambda: init_state(chosen, domain, jax.random.key(0)))
    after, metrics = jax.eval_shape(lambda s: step_alone(s, domain, KEY, chosen), state)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert {"loss/clip", "loss/area", "loss/tv"} < set(metrics)


def test_gradient_exists_for_trainables_only(domain):
    """The gradient has their structure and no other; w_plus and the original image carry none."""
    chosen = settings("attention_global")
    state = init_state(chosen, domain, jax.random.key(0))
    gradients = jax.eval_shape(
        lambda t: jax.grad(edit_loss, has_aux=True)(t, domain, observe(domain, w_plus(), METHODS[chosen.method]), chosen)[0],
        state.trainables,
    )
    assert jax.tree.structure(gradients) == jax.tree.structure(state.trainables)


def test_frozen_networks_are_arguments_of_the_compiled_step(domain):
    """Closed-over weights would appear as constants in the program."""
    chosen = settings("attention_global")
    state = init_state(chosen, domain, jax.random.key(0))
    text = step_alone.lower(state, domain, KEY, chosen).as_text()
    used = state, domain.generator, domain.clip.vision, domain.identity
    assert text[: text.index("->")].count("%arg") >= len(jax.tree.leaves(used))
    assert not [line for line in text.splitlines() if "stablehlo.constant" in line and len(line) > 4000]  # 500 numbers


def test_loss_terms_are_those_of_the_images(domain):
    """CLIP's and the identity term recomputed from what `apply_edit` draws without a threshold."""
    chosen = settings("segment_global")
    state = init_state(chosen, domain, jax.random.key(0))
    trainables = state.trainables
    trainables.editor.delta[...] = jnp.float32(np.random.default_rng(0).standard_normal(trainables.editor.delta.shape))
    method = METHODS[chosen.method]
    scene = jax.jit(observe, static_argnums=2)(domain, w_plus(), method)
    _, metrics = jax.jit(edit_loss)(trainables, domain, scene, chosen)
    original, edited, masks = jit_apply_edit(method, domain, trainables, w_plus(), 1.0, 0.0)
    sure = jax.tree.map(lambda x: x, trainables)
    sure.selector.logits[...] = jnp.full((SEGMENTS, 5), 100.0)
    _, full, _ = jit_apply_edit(method, domain, sure, w_plus(), 1.0, 0.0)

    @jax.jit
    def terms(domain, original, edited, full):
        clip = losses.clip_loss(domain.clip.encode_image(edited), domain.clip.encode_image(full), domain.text)
        distance = losses.clip_loss_of_one(domain.clip.encode_image(edited), domain.text)
        return clip, distance, losses.identity_loss(domain.identity.embed(edited), domain.identity.embed(original))

    clip, distance, identity = terms(domain, original, edited, full)
    np.testing.assert_allclose(metrics["loss/clip"], clip, rtol=1e-4)
    np.testing.assert_allclose(metrics["clip_distance"], distance, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss/identity"], identity, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(metrics["area"], [mask.mean() for mask in masks], rtol=1e-5)


@pytest.mark.parametrize(("ramp", "shares"), [(0.0, [1, 1, 1]), (0.5, [0, 0.5, 1])])
def test_lambda_area_grows_over_its_ramp(domain, ramp, shares):
    chosen = settings("attention_mapper", steps=4, area_ramp=ramp, lambda_area=1.0)
    state = init_state(chosen, domain, jax.random.key(0))
    for share in shares:
        state, metrics = step_alone(state, domain, KEY, chosen)
        rest = sum(getattr(chosen, LAMBDAS[term]) * float(metrics[f"loss/{term}"]) for term in ("l2", "identity", "tv"))
        area = float(metrics["loss/total"]) - float(metrics["loss/clip"]) - rest
        np.testing.assert_allclose(area, share * float(metrics["loss/area"]), atol=1e-4)


def test_deltas_of_faces_are_those_that_their_own_steps_find(domain):
    """The loop over all steps takes the steps of the training, and a face's delta is its own."""
    chosen = settings("styleclip_optimization", steps=3)
    state = init_state(chosen, domain, jax.random.key(0))
    for _ in range(3):
        state, _ = step_alone(state, domain, KEY, chosen)
    expected = state.trainables.editor.delta[...]
    np.testing.assert_allclose(find_deltas(domain, chosen, w_plus()).editor.delta[...], expected, rtol=1e-3, atol=1e-4)
    alone = find_deltas(domain, dataclasses.replace(chosen, batch_size=1), w_plus()[1:])
    np.testing.assert_allclose(alone.editor.delta[...], expected[1:], rtol=0.02, atol=1e-3)


def test_draws_depend_on_key_and_step_only(domain):
    chosen = settings("segment_global")
    first = draw_z(domain, KEY, 0, chosen)
    assert w_plus_of(domain, first, chosen).shape == (2, 6, 5)
    np.testing.assert_array_equal(first, draw_z(domain, KEY, 0, chosen))
    assert largest(first, draw_z(domain, KEY, 1, chosen)) > 0
    still = w_plus_of(domain, first, dataclasses.replace(chosen, truncation=0.0))
    np.testing.assert_allclose(still[1, 3], domain.generator.w_avg[...], rtol=1e-5)


def test_without_identity_and_segmenter():
    bare = frozen(identity=False, segmenter=False)
    chosen = settings("attention_global")
    state = init_state(chosen, bare, jax.random.key(0))
    _, metrics = jax.eval_shape(lambda s: step_alone(s, bare, KEY, chosen), state)
    assert "loss/identity" not in metrics
    with pytest.raises(ValueError, match="needs a segmenter"):
        init_state(settings("segment_mapper"), bare, jax.random.key(0))


def test_apply_edit(domain):
    """Threshold and alpha of section 4.1, and the exact original where nothing is selected."""
    method = METHODS["attention_global"]
    state = init_state(settings("attention_global"), domain, jax.random.key(0))
    trainables, codes = state.trainables, w_plus()
    trainables.editor.delta[...] = jnp.float32(np.random.default_rng(0).standard_normal(trainables.editor.delta.shape))
    original, edited, masks = jit_apply_edit(method, domain, trainables, codes, 1.0, 0.5)
    assert largest(original, edited) > 0.01
    assert all(bool(jnp.all((mask == 0) | (mask >= 0.5))) for mask in masks)
    original, edited, _ = jit_apply_edit(method, domain, trainables, codes, 1.0, 0.99)
    assert largest(original, edited) == 0.0
    _, unmoved, _ = jit_apply_edit(method, domain, trainables, codes, 0.0, 0.5)
    assert largest(original, unmoved) < 1e-5 * largest(original)
    _, reverse, _ = jit_apply_edit(method, domain, trainables, codes, -1.0, 0.5)
    trainables.editor.delta[...] = -trainables.editor.delta[...]
    _, negated, _ = jit_apply_edit(method, domain, trainables, codes, 1.0, 0.5)
    np.testing.assert_array_equal(reverse, negated)


def test_several_prompts_train_in_one_program(domain):
    """Each equals its own step, with its own weight of a loss, and the original images are drawn once for all of them."""
    weights = [0.1, 0.4]
    chosen = settings("attention_mapper", lambda_l2=jnp.array(weights))
    starts = [init_state(chosen, domain, jax.random.key(seed)) for seed in range(2)]
    texts = [domain.text, -domain.text]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)._replace(step=starts[0].step)
    many = domain._replace(text=jnp.stack(texts))
    step = jax.jit(lambda state, many, key: train_step(state, many, draw_z(many, key, state.step, chosen), chosen))
    together = step(stacked, many, KEY)
    for index, (start, text) in enumerate(zip(starts, texts, strict=True)):
        own = dataclasses.replace(chosen, lambda_l2=weights[index])
        alone = step_alone(start, domain._replace(text=text), KEY, own)
        of_one = jax.tree.map(lambda leaf: leaf[index], (together[0].opt_state.mu, together[1]))  # noqa: B023
        expected = alone[0].opt_state.mu, alone[1]  # Adam's first mean is a tenth of the gradient
        for ours, theirs in zip(jax.tree.leaves(of_one), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * largest(theirs) + 1e-7)


@pytest.mark.parametrize("form", ["gpu", "tpu"])
def test_the_step_is_the_same_in_the_form_of_every_platform(form, domain):
    chosen = settings("attention_mapper")
    state = init_state(chosen, domain, KEY)
    expected, metrics = step_alone(copied(state), domain, KEY, chosen)
    with aimed_at(form):
        found, values = step_alone(copied(state), domain, KEY, chosen)
    for name, value in metrics.items():
        np.testing.assert_allclose(values[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    for ours, wanted in zip(jax.tree.leaves(found.opt_state.mu), jax.tree.leaves(expected.opt_state.mu), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=1e-4 * largest(wanted) + 1e-9)


@pytest.mark.parametrize("method", ["attention_mapper", "segment_global", "styleclip_mapper"])
def test_microbatches_give_what_the_batch_gives(method, domain, monkeypatch):
    """Of four faces at most three at once, which is two and two; the state is as after a step down the gradient."""
    monkeypatch.setattr(step, "_descend", lambda trainables, opt_state, gradients, *_: (gradients, opt_state))
    whole, halves = (settings(method, batch_size=4, microbatch_size=size) for size in (0, 3))
    state = init_state(whole, domain, jax.random.key(0))

    def learned(chosen):
        return lambda state: step_alone.__wrapped__(state, domain, KEY, chosen)  # nothing is kept of the patch

    found = [jax.jit(learned(chosen))(state) for chosen in (whole, halves)]
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6 + 1e-5 * np.abs(one).max())
    assert str(jax.make_jaxpr(learned(halves))(state)).count("length=2") == 1
