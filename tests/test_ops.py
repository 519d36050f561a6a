"""StyleGAN2's operations against their definitions, written out in numpy."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from coral_jax.models import blocks, ops
from coral_jax.runtime.target import PLATFORMS, aimed_at

RNG = np.random.default_rng(0)
FIR_2D = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16.0  # sums to 4: up-sampling by 2 keeps the mean


def filtered(x: np.ndarray, kernel: np.ndarray, pad: tuple[int, int]) -> np.ndarray:
    """Pad x [B, H, W, C] and apply a 2-d filter to every channel: upfirdn2d without resampling."""
    x = np.pad(x, ((0, 0), pad, pad, (0, 0)))
    height, width = x.shape[1] - 3, x.shape[2] - 3
    return sum(kernel[a, b] * x[:, a : a + height, b : b + width] for a in range(4) for b in range(4))


def transposed(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Stride-2 transposed convolution without padding: every input pixel adds its 3x3 stamp."""
    batch, height, width, _ = x.shape
    out = np.zeros((batch, 2 * height + 1, 2 * width + 1, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            out[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += np.einsum("bi,hwio->bhwo", x[:, i, j], kernel)
    return out


@pytest.mark.parametrize("form", ["cpu", "gpu", "tpu", "fused"])
@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (1, 5, 3, 2)])
def test_upsample_conv_is_transposed_convolution_then_fir(form, shape):
    x, kernel = RNG.standard_normal(shape), RNG.standard_normal((3, 3, shape[-1], 4))
    with aimed_at("cpu" if form == "fused" else form):
        upsample = jax.jit(ops.upsample_conv, static_argnames="fused")
        ours = upsample(jnp.float32(x), jnp.float32(kernel), fused=form == "fused")
    np.testing.assert_allclose(ours, filtered(transposed(x, kernel), FIR_2D, (1, 1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["cpu", "gpu"])  # a TPU's is the fused one
def test_all_upsampling_forms_have_the_same_gradients(form):
    """The hand-written derivative of the FIR included."""
    x, kernel = jnp.float32(RNG.standard_normal((2, 4, 6, 3))), jnp.float32(RNG.standard_normal((3, 3, 3, 5)))
    weight = jnp.float32(RNG.standard_normal((2, 8, 12, 5)))

    @jax.jit
    def gradients(x, kernel):
        def total(x, kernel, fused):
            return jnp.sum(ops.upsample_conv(x, kernel, fused=fused) * weight)

        return [jax.grad(total, argnums=(0, 1))(x, kernel, fused) for fused in (False, True)]

    with aimed_at(form):
        unfused, fused = gradients(x, kernel)
    for ours, theirs in zip(unfused, fused, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_upsample_is_zero_stuffing_then_fir():
    x = RNG.standard_normal((2, 4, 5, 3))
    stuffed = np.zeros((2, 8, 10, 3))
    stuffed[:, ::2, ::2] = x
    np.testing.assert_allclose(ops.upsample(jnp.float32(x)), filtered(stuffed, FIR_2D, (2, 1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("demodulate", [False, True])
@pytest.mark.parametrize("up", [False, True])
def test_modulated_conv_equals_a_kernel_for_each_sample(up, demodulate):
    """StyleGAN2's definition: modulate, then demodulate, the kernel of each sample."""
    x, style = RNG.standard_normal((3, 4, 4, 6)), RNG.standard_normal((3, 6)) + 1
    kernel = RNG.standard_normal((3, 3, 6, 5))
    ours = ops.modulated_conv(jnp.float32(x), jnp.float32(kernel), jnp.float32(style), up=up)
    if demodulate:
        ours = ours * ops.demodulation(jnp.float32(kernel), jnp.float32(style))[:, None, None, :]
    for b in range(3):
        own = kernel * style[b][None, None, :, None]
        if demodulate:
            own = own / np.sqrt(np.sum(own**2, axis=(0, 1, 2)) + 1e-8)
        if up:
            expected = filtered(transposed(x[b : b + 1], own), FIR_2D, (1, 1))
        else:
            padded = np.pad(x[b : b + 1], ((0, 0), (1, 1), (1, 1), (0, 0)))
            expected = sum(padded[:, i : i + 4, j : j + 4] @ own[i, j] for i in range(3) for j in range(3))
        np.testing.assert_allclose(ours[b : b + 1], expected, rtol=1e-4, atol=1e-4)


def large(channels: int, batch: int = 1) -> jax.Array:
    """Features that a TPU computes on in blocks."""
    return jnp.float32(RNG.standard_normal((batch, blocks.LARGE, blocks.LARGE, channels)))


@pytest.mark.parametrize("size, channels", [(3, 4), (1, 3)])
def test_large_layers_are_the_same_in_the_form_of_every_platform(size, channels):
    x, style = large(2, batch=2), jnp.float32(RNG.standard_normal((2, 2)))
    kernel = jnp.float32(RNG.standard_normal((size, size, 2, channels)))
    weight = large(channels, batch=2)

    def total(x, style, kernel):
        out = ops.modulated_conv(x, kernel, style)
        return jnp.sum(out * weight), out

    found = {}
    for form in PLATFORMS:
        with aimed_at(form):
            found[form] = jax.tree.leaves(jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(x, style, kernel))
    for theirs in (found["gpu"], found["tpu"]):
        for one, pixels in zip(theirs, found["cpu"], strict=True):
            np.testing.assert_allclose(one, pixels, rtol=1e-4, atol=1e-5 * float(jnp.max(jnp.abs(pixels))))


def test_between_large_layers_blocks_are_never_made_pixels():
    """XLA drops the way there and back, in the derivative too, and an image is made by a product."""
    kernels = [jnp.ones((3, 3, 8, 8)), jnp.ones((3, 3, 8, 8)), jnp.ones((1, 1, 8, 3))]
    vector = jnp.ones((1, 8))

    def total(x, noise):
        for kernel, up in zip(kernels[:2], (True, False), strict=True):
            x = ops.activate(ops.modulated_conv(x, kernel, vector, up=up), vector, noise, vector[0])
        return jnp.sum(jnp.square(ops.modulated_conv(x, kernels[2], vector)))

    def rearranged(of):
        with aimed_at("tpu"):
            text = jax.jit(of).lower(large(8)[:, ::2, ::2], large(1)[0, ..., 0]).compile().as_text()
        shapes = re.findall(r"f32\[([\d,]+)\]\S* transpose\(", text)
        return sum(math.prod(map(int, shape.split(","))) > 4 * blocks.LARGE**2 for shape in shapes)  # more than an image

    assert rearranged(jax.grad(total)) == 0
    assert rearranged(lambda x, noise: ops.modulated_conv(x, kernels[0], vector, up=True)) == 1


def test_equal_linear_scales_its_kernel_and_bias():
    layer = ops.EqualLinear(4, 2, nnx.Rngs(0), lr_mul=0.1, bias=1.0)
    layer.kernel[...] = jnp.arange(8.0).reshape(4, 2)
    x = jnp.asarray([[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_allclose(layer.bias[...], 10.0)  # stored divided by lr_mul
    np.testing.assert_allclose(layer(x), np.array([[40.0, 50.0]]) * 0.1 / 2 + 1.0, rtol=1e-6)


def test_pixel_norm_and_leaky_relu():
    x = jnp.asarray([[3.0, -4.0], [0.5, 0.5]])
    np.testing.assert_allclose(jnp.mean(ops.pixel_norm(x) ** 2, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(ops.leaky_relu(x)[0], np.sqrt(2) * np.array([3.0, -0.8]), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_platform_has_a_form_of_its_own_in_the_type_of_its_input(dtype):
    x, kernel = jnp.ones((1, 4, 4, 3), dtype), jnp.ones((3, 3, 3, 2), dtype)
    programs = {}
    for form in PLATFORMS:
        with aimed_at(form):
            programs[form] = jax.jit(ops.upsample_conv).lower(x, kernel).as_text()
            assert jax.eval_shape(ops.upsample_conv, x, kernel).dtype == dtype
    assert {form: text.count("stablehlo.convolution") for form, text in programs.items()} == {"cpu": 4, "gpu": 1, "tpu": 1}
    assert "lhs_dilate = [2, 2]" in programs["gpu"] and "lhs_dilate = [2, 2]" not in programs["tpu"]


def plain_activation(x, factor, noise, bias):
    shift = noise[..., None] + bias[None, None]
    return jax.nn.leaky_relu(x * factor[:, None, None, :] + shift[None], 0.2) * np.sqrt(2)


@pytest.mark.parametrize("form, size", [*((form, (3, 4)) for form in PLATFORMS), ("tpu", (blocks.LARGE, blocks.LARGE))])
def test_activation_and_its_derivative(form, size):
    """That of the plain formula, though it is found from the output."""
    shapes = (2, *size, 5), (2, 5), size, (5,)
    x, factor, noise, bias = (jnp.float32(RNG.standard_normal(shape)) for shape in shapes)
    factor = jnp.abs(factor) + 0.1

    weights = jnp.float32(RNG.standard_normal(x.shape))
    with aimed_at(form):
        ours, pull = jax.vjp(ops.activate, x, factor, noise, bias)
        derivatives = pull(weights)
    expected, pull_expected = jax.vjp(plain_activation, x, factor, noise, bias)
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)
    for found, wanted in zip(derivatives, pull_expected(weights), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * float(jnp.max(jnp.abs(wanted))))


def test_derivatives_of_modulation_alone_and_for_several_prompts():
    """Of x and of style: those of the plain product; the same prompt by prompt and all at once."""
    x, style = jnp.float32(RNG.standard_normal((2, 3, 4, 4, 6))), jnp.float32(RNG.standard_normal((2, 3, 6)))
    kernel = jnp.float32(RNG.standard_normal((3, 3, 6, 5)))

    def plain(x, style):
        return jnp.sum(jnp.sin(ops.conv2d(x * style[:, None, None, :], kernel)))

    def ours(x, style):
        return jnp.sum(jnp.sin(ops.modulated_conv(x, kernel, style)))

    derivative, expected = (jax.grad(function, argnums=(0, 1)) for function in (ours, plain))
    together = jax.vmap(derivative)(x, style)
    for i in range(2):
        alone = derivative(x[i], style[i])
        for found, own, wanted in zip(together, alone, expected(x[i], style[i]), strict=True):
            np.testing.assert_allclose(own, wanted, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(found[i], own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shifted", [0.1, 1.0, 5.0])
def test_the_activations_derivative_in_bfloat16_is_about_as_near_to_the_truth_as_autodiffs(shifted):
    """It recovers its input from an output of 8 bits, which loses most where the shift is large beside the input."""
    rng = np.random.default_rng(1)
    x, weight = rng.standard_normal((2, 2, 16, 16, 8))
    factor, noise, bias = 1 + 0.3 * rng.standard_normal((2, 8)), *(
        shifted / math.sqrt(2) * rng.standard_normal(n) for n in ((16, 16), 8)
    )  # fmt: skip

    def plain(x, factor, noise, bias):
        shift = noise[..., None] + bias[None, None]
        y = x * factor[:, None, None].astype(x.dtype) + shift.astype(x.dtype)[None]
        return jnp.where(y >= 0, y, 0.2 * y) * jnp.asarray(np.sqrt(2), y.dtype)

    def gradients(function, dtype):
        def weighted(*arguments):
            return jnp.sum(function(*arguments).astype(jnp.float32) * jnp.float32(weight))

        arguments = (jnp.asarray(x, dtype), *map(jnp.float32, (factor, noise, bias)))
        return jax.jit(jax.grad(weighted, argnums=(0, 1, 2, 3)))(*arguments)

    def error(found):
        return [float(jnp.linalg.norm(a.astype("float32") - b) / jnp.linalg.norm(b)) for a, b in zip(found, truth, strict=True)]

    truth = gradients(plain, jnp.float32)
    ours, automatic = error(gradients(ops.activate, jnp.bfloat16)), error(gradients(plain, jnp.bfloat16))
    for one, other in zip(ours, automatic, strict=True):
        assert 1e-4 < one < 1.5 * other < 0.06


@pytest.mark.parametrize(("height", "width"), [(8, 12), (6, 9)])
def test_pictures_are_made_smaller_by_means_of_pixels(height, width):
    image = RNG.standard_normal((height, width)).astype(np.float32)
    found = ops.resized(jnp.asarray(image)[None, ..., None], 4)[0, ..., 0]
    # With every pixel repeated four times either way, the four parts of a side are whole.
    parts = np.kron(image, np.ones((4, 4), np.float32)).reshape(4, height, 4, width)
    np.testing.assert_allclose(found, parts.mean((1, 3)), atol=1e-6)


def test_pictures_are_made_larger_linearly():
    image = RNG.standard_normal((2, 2)).astype(np.float32)
    found = ops.resized(jnp.asarray(image)[None, ..., None], 4)[0, :, 0, 0]
    np.testing.assert_allclose(found, np.interp([-0.25, 0.25, 0.75, 1.25], [0, 1], image[:, 0]), atol=1e-6)


@pytest.mark.parametrize("padding", [None, ((1, 1), (1, 1)), ((2, 3), (0, 1))])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (1, 7, 10, 2)])
def test_a_depthwise_convolution_and_its_derivatives_are_a_grouped_ones(shape, size, stride, padding):
    def grouped(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel[:, :, None], (stride, stride), padding or "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=shape[-1],
        )  # fmt: skip

    x, kernel = (jnp.asarray(RNG.standard_normal(s), jnp.float32) for s in (shape, (size, size, shape[-1])))
    with jax.default_matmul_precision("highest"):
        ours, back = jax.vjp(lambda x, kernel: ops.depthwise(x, kernel, stride, padding), x, kernel)
        expected, expected_back = jax.vjp(grouped, x, kernel)
        np.testing.assert_allclose(ours, expected, atol=1e-5)
        gradient = jnp.asarray(RNG.standard_normal(ours.shape), jnp.float32)
        for one, other in zip(back(gradient), expected_back(gradient), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
