"""StyleGAN2 checkpoints of other programs: they draw what those programs draw, go back to the bit, and fail clearly."""

import copy
import pickle
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import REPOSITORY
from flax import nnx

from converters import engine, reading, stylegan2
from coral_jax import weights
from coral_jax.models.stylegan2 import StyleGAN2, StyleGAN2Config

DATA = Path(__file__).parent / "data"
PICKLES = ["stylegan2_nvlabs_cfgf.pkl", "stylegan2_nvlabs_auto2.pkl"]
ROSINALITY = "stylegan2_rosinality_64.pt"


def generator_of(content):
    """The converted generator, nothing made up on the way."""
    generator, notes = stylegan2.load(content, "theirs")
    assert notes == []
    return generator


@pytest.fixture(scope="module")
def nvidia():
    """The arrays of a golden pickle, by name."""
    return reading.flatten(reading.read(DATA / PICKLES[1])["G_ema"])


@pytest.fixture(scope="module")
def rosinality():
    """A checkpoint with rosinality's names, as reading gives it; made here, so that tests do without torch."""
    generator = tiny.generator()
    arrays = engine.extract(generator, stylegan2.rosinality_table(generator.config))
    return {"latent_avg": arrays.pop("latent_avg"), "g_ema": arrays}


def assert_same(one, other):
    """Two networks are equal to the bit."""
    ours, theirs = weights.named_variables(one), weights.named_variables(other)
    assert one.config == other.config and ours.keys() == theirs.keys()
    for name in ours:
        assert np.asarray(ours[name][...]).tobytes() == np.asarray(theirs[name][...]).tobytes(), name


@jax.jit
def drawn(generator, expected):
    """What the other program drew, in one batch."""
    w = generator.mapping(expected["z"])
    truncated = generator.broadcast(generator.truncate(w, 0.7))
    images = generator.synthesis(jnp.concatenate([generator.broadcast(w), truncated, expected["w_plus"]]))
    return dict(zip(("image", "image_psi07", "image_w_plus"), jnp.split(images, 3), strict=True)) | {"w": w}


@pytest.mark.parametrize("name", [ROSINALITY, *PICKLES])
def test_converted_file_draws_what_its_program_draws(tmp_path, name):
    out = tmp_path / "generator.safetensors"
    line = stylegan2.convert(DATA / name, out)
    assert len(line.splitlines()) == 1 and str(out) in line and "codes of 48" in line
    expected = weights.load_tensors((DATA / name).with_suffix(".safetensors"))[0]
    with jax.default_matmul_precision("highest"):
        ours = drawn(weights.load(out), {key: expected[key] for key in ("z", "w_plus")})
    for key in ("w", "image", "image_psi07", "image_w_plus"):
        theirs = expected[key].transpose(0, 2, 3, 1) if expected[key].ndim == 4 else expected[key]
        error = np.linalg.norm(np.asarray(ours[key]) - theirs) / np.linalg.norm(theirs)
        print(f"{name} {key}: relative error {error:.1e}")
        assert error <= 1e-5, key


def test_sizes_come_from_the_weights(nvidia, rosinality):
    channels = ((4, 24), (8, 24), (16, 24), (32, 20))
    assert stylegan2.nvidia_config(nvidia, "") == StyleGAN2Config(32, 48, 48, 2, channels)
    flat = rosinality["g_ema"]
    assert stylegan2.rosinality_config(flat, "") == tiny.GENERATOR


@pytest.mark.parametrize("size, codes", [(1024, 18), (512, 16), (256, 14)])
def test_sizes_of_published_generators(size, codes):
    """Faces of 1024 px, cars of 512 px: the names and shapes of each format, and the sizes read back from them."""
    sizes = [2**k for k in range(2, size.bit_length())]
    config = StyleGAN2Config(size, 512, 512, 8, tuple((r, min(512, 32768 // r)) for r in sizes))
    network = nnx.eval_shape(lambda: StyleGAN2(config, nnx.Rngs(0)))
    shapes = {name: variable.shape for name, variable in weights.named_variables(network).items()}
    assert network.n_latent == codes
    formats = {
        "rosinality": {"convs.0.conv.modulation.weight": (512, 512), f"noises.noise_{codes - 2}": (1, 1, size, size),
                       f"to_rgbs.{codes // 2 - 2}.bias": (1, 3, 1, 1), "style.8.weight": (512, 512)},
        "nvidia": {f"synthesis.b{size}.conv1.noise_const": (size, size), "mapping.fc7.bias": (512,),
                   "synthesis.b64.conv0.weight": (512, 512, 3, 3), f"synthesis.b{size}.torgb.bias": (3,)},
        "tensorflow": {f"synthesis/{size}x{size}/Conv0_up/noise_strength": (), "synthesis/4x4/Conv/weight": (3, 3, 512, 512),
                       f"synthesis/noise{codes - 2}": (1, 1, size, size), "dlatent_avg": (512,)},
    }  # fmt: skip
    for name, known in formats.items():
        table = getattr(stylegan2, f"{name}_table")(config)
        blanks = {ours: np.broadcast_to(np.float32(0), shape) for ours, shape in shapes.items()}
        arrays = {theirs: layout.write(blanks[ours]) for ours, (theirs, layout) in table.items()}
        assert len(arrays) == len(shapes)
        assert {key: arrays[key].shape for key in known} == known
        assert getattr(stylegan2, f"{name}_config")(arrays, "") == config


# --- the TensorFlow pickle ------------------------------------------------------------------------------------------------


@pytest.fixture
def tensorflow(tmp_path, monkeypatch):
    """Writes a pickle as the TensorFlow programs do: three dnnlib.tflib.network.Network with the given variables."""

    class Network:
        def __init__(self, state):
            self.state = state

        def __getstate__(self):
            return self.state

    module = types.ModuleType("dnnlib.tflib.network")
    module.Network = Network
    Network.__module__, Network.__qualname__ = "dnnlib.tflib.network", "Network"
    for name in ("dnnlib", "dnnlib.tflib", "dnnlib.tflib.network"):
        monkeypatch.setitem(sys.modules, name, module)

    def network(variables, components, version, **static_kwargs):
        return Network(
            {
                "version": version, "name": "G", "static_kwargs": static_kwargs, "components": components,
                "build_module_src": "raise SystemExit('run')", "build_func_name": "G_main", "variables": variables,
            }
        )  # fmt: skip

    def write(arrays, version=4, **static_kwargs):
        parts = {"mapping/": [], "synthesis/": [], "": []}
        for name, array in arrays.items():
            part = next(prefix for prefix in parts if name.startswith(prefix))
            parts[part].append((name.removeprefix(part), np.array(array)[()]))  # numbers are no arrays there
        components = {key: network(parts[f"{key}/"], {}, version) for key in ("mapping", "synthesis")}
        ema = network(parts[""], components, version, **static_kwargs)
        other = network([], {}, version)
        path = tmp_path / "network.pkl"
        path.write_bytes(pickle.dumps((other, other, ema), 4))
        return path

    return write


def to_tensorflow(nvidia):
    """Arrays of the PyTorch generator under TensorFlow's names: written out here, apart from the converter's tables."""
    arrays = {"dlatent_avg": nvidia["mapping.w_avg"], "synthesis/4x4/Const/const": nvidia["synthesis.b4.const"][None]}
    for i in range(2):
        arrays[f"mapping/Dense{i}/weight"] = nvidia[f"mapping.fc{i}.weight"].T
        arrays[f"mapping/Dense{i}/bias"] = nvidia[f"mapping.fc{i}.bias"]
    noise = 0
    for resolution in (4, 8, 16, 32):
        for theirs, name in (("conv0", "Conv0_up"), ("conv1", "Conv1" if resolution > 4 else "Conv"), ("torgb", "ToRGB")):
            source = f"synthesis.b{resolution}.{theirs}."
            if source + "weight" not in nvidia:
                continue
            target = f"synthesis/{resolution}x{resolution}/{name}/"
            kernel = nvidia[source + "weight"].transpose(2, 3, 1, 0)
            arrays[target + "weight"] = kernel[::-1, ::-1] if name == "Conv0_up" else kernel
            arrays[target + "bias"] = nvidia[source + "bias"]
            arrays[target + "mod_weight"] = nvidia[source + "affine.weight"].T
            arrays[target + "mod_bias"] = nvidia[source + "affine.bias"] - np.float32(1)
            if name != "ToRGB":
                arrays[target + "noise_strength"] = nvidia[source + "noise_strength"]
                arrays[f"synthesis/noise{noise}"] = nvidia[source + "noise_const"][None, None]
                noise += 1
    return arrays


def test_tensorflow_pickle_draws_the_same(nvidia, tensorflow, tmp_path):
    """Its kernels of up-sampling layers are flipped and its styles lack their 1, as stylegan2-ada-pytorch's legacy.py says."""
    path = tensorflow(to_tensorflow(nvidia), resample_kernel=[1, 3, 3, 1], mapping_lrmul=0.01, fmap_base=320)
    converted, reference = generator_of(reading.read(path)), generator_of(nvidia)
    ours, theirs = weights.named_variables(converted), weights.named_variables(reference)
    assert converted.config == reference.config
    for name in ours:  # (b - 1) + 1 rounds
        np.testing.assert_allclose(ours[name][...], theirs[name][...], atol=1e-6 if "modulation.bias" in name else 0)
    gs = reading.read(path)[2]  # the moving average in a file of its own
    assert_same(generator_of(gs), converted)
    assert_same(generator_of({"Gs": gs}), converted)


def test_tensorflow_relatives_are_refused(nvidia, tensorflow):
    arrays = to_tensorflow(nvidia)
    for settings, text in (
        ({"version": 3}, "older than StyleGAN2"),
        ({"resample_kernel": [1, 2, 1]}, r"the filter \[1, 2, 1\]"),
        ({"mapping_lrmul": 0.1}, "scales its mapping network by 0.1"),
    ):
        with pytest.raises(ValueError, match=text):
            stylegan2.load(reading.read(tensorflow(arrays, **settings)), "theirs")
    for name, text in (
        ("mapping/LabelEmbed/weight", "conditional"),
        ("mapping/LabelConcat/weight", "conditional"),
        ("synthesis/4x4/Const/StyleMod/weight", "older than StyleGAN2"),
        ("synthesis/ToRGB_lod0/weight", "no ToRGB in every block"),
    ):
        with pytest.raises(ValueError, match=text):
            stylegan2.load(reading.read(tensorflow(arrays | {name: np.zeros(1)})), "theirs")


# --- what a checkpoint lacks ----------------------------------------------------------------------------------------------


def test_w_avg_is_estimated_where_there_is_no_latent_avg(rosinality):
    whole = generator_of(rosinality)
    generator, notes = stylegan2.load({"g_ema": rosinality["g_ema"]}, "nada.pt")
    assert notes == ["nada.pt has no mean w (latent_avg): w_avg is estimated from 100,000 w"]
    z = np.random.default_rng(1).standard_normal((100_000, 6)).astype(np.float32)
    w = np.asarray(jax.jit(whole.mapping)(z))
    # Two means of 100,000 differ by their standard errors.
    assert np.all(np.abs(w.mean(0) - generator.w_avg[...]) < 6 * w.std(0) / np.sqrt(50_000))
    assert np.array_equal(generator.w_avg[...], stylegan2.load({"g": rosinality["g_ema"]}, "again.pt")[0].w_avg[...])
    generator.w_avg.set_value(whole.w_avg[...])
    assert_same(generator, whole)


def test_noise_is_drawn_where_none_is_stored(rosinality):
    bare = {name: array for name, array in rosinality["g_ema"].items() if not name.startswith("noises.")}
    (one, notes), (two, _) = (stylegan2.load(rosinality | {"g_ema": bare}, "theirs") for _ in range(2))
    assert notes == ["theirs has no stored noise: drawn from seed 0, so details such as strands of hair are ours"]
    assert_same(one, two)
    assert 0.5 < float(jnp.std(one.convs[4].noise[...])) < 2
    bare["noises.noise_0"] = rosinality["g_ema"]["noises.noise_0"]
    with pytest.raises(ValueError, match="unfilled: convs.1.noise, for lack of noises.noise_1"):
        stylegan2.load(rosinality | {"g_ema": bare}, "theirs")


def test_moving_average_goes_before_the_raw_generator(rosinality):
    raw = {name: array + 1 for name, array in rosinality["g_ema"].items()}
    training = rosinality | {"g": raw, "d": {}, "g_optim": {"state": {}}, "args": {"lr": 0.1}}
    assert_same(generator_of(training), generator_of(rosinality))
    for form in (rosinality["latent_avg"][None], np.tile(rosinality["latent_avg"], (6, 1))):
        assert_same(generator_of(rosinality | {"latent_avg": form}), generator_of(rosinality))
        assert_same(generator_of(rosinality["g_ema"] | {"latent_avg": form}), generator_of(rosinality))
    with pytest.raises(ValueError, match=r"wrong shape: latent_avg is \(4,\), for w_avg it must be \(5,\)"):
        stylegan2.load(rosinality | {"latent_avg": rosinality["latent_avg"][:4]}, "theirs")


# --- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names, text",
    [
        (["synthesis.input.freqs", "synthesis.L0_36_512.weight"], "is a StyleGAN3; give a StyleGAN2"),
        (["mapping.embed.weight"], "is a conditional generator"),
        (["mapping.embed.weight", "mapping.embed_proj.weight", "synthesis.input.freqs"], "is a StyleGAN-XL"),
        (["synthesis.b8.skip.weight"], "no ToRGB in every block"),
        (["generator.progression.0.conv.weight"], "is a StyleGAN or a progressive GAN"),
        (["g_synthesis.blocks.4x4.const"], "is a StyleGAN or a progressive GAN"),
        (["stylegan_decoder.style_conv1.weight", "conv_body_first.weight"], "is a GFPGAN"),
        (["style_mlp.1.weight", "constant_input.weight"], "is a StyleGAN2 in BasicSR's form"),
    ],
)
def test_relatives_are_refused_by_name(nvidia, names, text):
    foreign = {name: np.zeros((1, 1), np.float32) for name in names}
    for content in (nvidia | foreign, foreign, {"params_ema": foreign}, {"model": {"state_dict": foreign}}):
        with pytest.raises(ValueError, match=f"theirs {text}|theirs has {text}"):
            stylegan2.load(content, "theirs")


def test_other_filters_and_rates_are_refused(nvidia):
    box = {"synthesis.b8.conv0.resample_filter": np.full((4, 4), 1 / 16, np.float32)}
    with pytest.raises(ValueError, match=r"another filter \(synthesis.b8.conv0.resample_filter\)"):
        stylegan2.load(nvidia | box, "theirs")
    content = copy.deepcopy(reading.read(DATA / PICKLES[1]))
    content["G_ema"]["_modules"]["mapping"]["_modules"]["fc0"]["bias_gain"] = 0.1
    with pytest.raises(ValueError, match="scales its mapping network by 0.1"):
        stylegan2.load(content, "theirs")


@pytest.mark.parametrize(
    "content, text",
    [
        ([1, 2, 3], "holds a list, and no generator; read are"),
        ({}, "holds nothing, and no generator"),
        ({"state_dict": {}, "epoch": 3}, "holds state_dict, epoch, and no generator"),
        ({"visual.proj": np.zeros(1)}, "holds visual.proj, and no generator; read are"),
        ({f"layer{i}.weight": np.zeros(1) for i in range(10)}, "layer7.weight and 2 more, and no generator"),
        ({"input.input": np.zeros((1, 8, 4, 4))}, "not a StyleGAN2 generator: no conv1.activate.bias"),
        ({"synthesis.b4.const": np.zeros((8, 4, 4))}, "not a StyleGAN2 generator: no synthesis.b4.conv1.weight"),
        ({"synthesis/4x4/Const/const": np.zeros(1)}, "not a StyleGAN2 generator: no synthesis/4x4/Conv/weight"),
    ],
)
def test_what_is_no_generator(content, text):
    with pytest.raises(ValueError, match=text):
        stylegan2.load(content, "theirs")


def test_missing_and_wrong_arrays_are_all_listed(nvidia):
    broken = dict(nvidia)
    del broken["synthesis.b16.conv0.bias"]
    broken["synthesis.b8.conv0.weight"] = broken["synthesis.b8.conv0.weight"][:-1]
    broken["synthesis.b64.conv1.weight"] = broken["synthesis.b32.conv1.weight"]
    with pytest.raises(ValueError) as raised:
        stylegan2.load(broken, "theirs")
    text = str(raised.value)
    assert "for lack of synthesis.b16.conv0.bias" in text and "for lack of synthesis.b64.conv0.weight" in text
    assert "synthesis.b8.conv0.weight is (23, 24, 3, 3), for convs.1.kernel it must be (24, 24, 3, 3)" in text


# --- the command ----------------------------------------------------------------------------------------------------------


def run(*arguments):
    """The command line, in a process of its own."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)


def test_commands_convert_and_never_overwrite(tmp_path):
    ours, again = tmp_path / "ours.safetensors", tmp_path / "again.safetensors"
    assert "StyleGAN2 of 32 px" in stylegan2.convert(DATA / PICKLES[1], ours)
    said = weights.load_tensors(ours)[1]
    assert (said["source"], said["source_sha256"]) == (PICKLES[1], weights.fingerprint(DATA / PICKLES[1]))
    done = run("converters.export", f"--checkpoint={ours}", f"--out={again}", "--format=nvidia")
    assert done.returncode == 0 and done.stdout.count("\n") == 1 and "Generator(" in done.stdout, done.stderr
    before = ours.read_bytes()
    done = run("converters.stylegan2", f"--checkpoint={again}", f"--out={ours}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "give another --out or remove it" in done.stderr
    assert ours.read_bytes() == before and sorted(tmp_path.iterdir()) == [again, ours]
