"""A generator is found through whatever known programs put around it, and nothing is taken for one that is none."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch_files
from test_converters_stylegan2 import assert_same, generator_of
from torch_files import Made, Name

from converters import engine, reading, stylegan2
from converters.identity import tensors_of

DATA = Path(__file__).parent / "data"
STATE = engine.extract(tiny.generator(), stylegan2.rosinality_table(tiny.GENERATOR))
AVERAGE = STATE.pop("latent_avg")
NVIDIA = engine.extract(tiny.generator(), stylegan2.nvidia_table(tiny.GENERATOR))


def prefixed(prefix, arrays=STATE):
    return {prefix + name: array for name, array in arrays.items()}


RAW = {name: array + 1 for name, array in STATE.items()}
E4E = prefixed("decoder.") | {"encoder.input_layer.0.weight": np.zeros((64, 3, 3, 3), np.float32)}


@pytest.mark.parametrize(
    "content",
    [
        {"g_ema": prefixed("module.")},
        {"g_ema": prefixed("_orig_mod.")},
        {"g_ema": prefixed("module._orig_mod.")},
        {"params_ema": STATE, "params": RAW},
        {"params": STATE},
        {"state_dict": STATE, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": np.zeros(3)}}}},
        {"model_state_dict": prefixed("generator.")},
        {"model": {"state_dict": prefixed("module.decoder.")}},
        {"state_dict": prefixed("generator_ema.") | prefixed("generator.", RAW) | {"discriminator.x": np.zeros(2)}},
        {"G_ema": STATE, "G": RAW},
        prefixed("module.") | {"n_averaged": np.int64(3)},
        prefixed("g_ema.") | prefixed("g.", RAW),
        {"netG": STATE, "netD": {"x": np.zeros(1)}},
    ],
    ids=lambda content: " ".join(map(str, list(content)[:2])),
)
def test_known_wrappings_are_seen_through(content):
    assert_same(generator_of(content | {"latent_avg": AVERAGE}), tiny.generator())


@pytest.mark.parametrize("content", [{"state_dict": prefixed("module.", NVIDIA)}, {"G_ema": NVIDIA}, {"generator": NVIDIA}])
def test_of_any_implementation(content):
    assert_same(generator_of(content), tiny.generator())


@pytest.mark.parametrize(
    "content, text",
    [
        ({"weights": STATE, "epoch": 3}, "theirs holds weights, epoch, and no generator; read are"),
        ({"model": STATE, "net": RAW}, "holds such a network more than once: model, net; save the state dict of one alone"),
        ({"ema": {"shadow.w": np.zeros(3)}, "g": STATE}, "holds ema, a moving average that cannot be read; save its state"),
        (prefixed("generator.") | {"res.0.conv.weight": np.zeros(3)}, r"a larger network, of which generator.\* is a part"),
        (prefixed("model.decoder.") | {"model.res.weight": np.zeros(3)}, "others are model.res.weight .1 in all."),
        (prefixed("strange."), "theirs holds strange.input.input, .* and no generator"),
    ],
)
def test_what_is_not_known_is_named_and_nothing_guessed(content, text):
    if "weights" not in content:
        content = content | {"latent_avg": AVERAGE}
    with pytest.raises(ValueError, match=text):
        stylegan2.load(content, "theirs")


def test_identity_networks_are_found_the_same_way():
    arrays = {"input_layer.0.weight": np.zeros(1), "body.0.x": np.ones(1)}
    for content in (arrays, {"state_dict": prefixed("module.", arrays)}, {"model": prefixed("facenet.", arrays)}):
        assert tensors_of(content, "x") == arrays


# --- encoders' files ------------------------------------------------------------------------------------------------------


def test_the_generator_of_an_encoders_file_is_taken_with_its_mean(tmp_path):
    """e4e and pSp: the mean stands once for each code."""
    options = Made(Name("argparse", "Namespace"), state={"stylegan_size": 16})
    content = {"state_dict": E4E, "latent_avg": np.tile(AVERAGE, (6, 1)), "opts": options}
    torch_files.save(tmp_path / "e4e_ffhq_encode.pt", content)
    lines = stylegan2.convert(tmp_path / "e4e_ffhq_encode.pt", tmp_path / "g.safetensors").splitlines()
    assert len(lines) == 2 and "holds an encoder as well, which is not converted" in lines[0]
    generator, _ = stylegan2.load(reading.read(tmp_path / "e4e_ffhq_encode.pt"), "theirs")
    assert_same(generator, tiny.generator())


def test_a_mean_that_differs_from_code_to_code_is_none():
    average = np.tile(AVERAGE, (6, 1))
    average[3] += 1
    generator, notes = stylegan2.load({"state_dict": E4E, "latent_avg": average}, "theirs")
    assert notes[0] == "theirs: latent_avg differs from code to code, and is no mean w"
    assert notes[2] == "theirs has no mean w (latent_avg): w_avg is estimated from 100,000 w"
    assert np.array_equal(generator.w_avg[...], stylegan2.load({"g_ema": STATE}, "again")[0].w_avg[...])


# --- objects --------------------------------------------------------------------------------------------------------------


def module(state, kind=("model", "Generator"), **attributes):
    """A torch module as torch.save writes the whole of it: nested modules, parameters and buffers by name."""
    parts, own = {}, {}
    for name, array in state.items():
        first, _, rest = name.partition(".")
        (parts.setdefault(first, {}) if rest else own)[rest or first] = array
    modules = {name: module(part, ("torch.nn.modules", "Module"), **attributes) for name, part in parts.items()}
    state = {"_parameters": own, "_buffers": {}, "_modules": modules, "training": True, **attributes}
    return Made(Name("copyreg", "_reconstructor"), Name(*kind), Name("builtins", "object"), None, state=state)


def test_a_network_saved_whole_is_read_as_its_state_dict(tmp_path):
    """Its class is not there, and not needed; its layers say how their weights are scaled."""
    for save in (torch_files.save, torch_files.save_pickle):
        save(tmp_path / "x.pt", {"g_ema": module(STATE), "latent_avg": AVERAGE})
        assert_same(generator_of(reading.read(tmp_path / "x.pt")), tiny.generator())
    torch_files.save(tmp_path / "x.pt", {"g_ema": module(STATE, lr_mul=0.1)})
    with pytest.raises(ValueError, match="scales its mapping network by 0.1"):
        stylegan2.load(reading.read(tmp_path / "x.pt"), "theirs")


@pytest.mark.parametrize("save", [torch_files.save, torch_files.save_pickle])
def test_strange_objects_in_unused_parts_are_neither_run_nor_fatal(tmp_path, save):
    owned = tmp_path / "owned"
    strange = {
        "args": Made(Name("argparse", "Namespace"), state={"lr": 0.1}), "run": Made(Name("os", "system"), f"touch {owned}"),
        "best_fid": np.float32(3.5), "date": Made(Name("datetime", "datetime"), b"1234567890"), "none": None,
        "options": Made(Name("omegaconf.dictconfig", "DictConfig"), state={"_content": {}}),
        "nested": Made(Made(Name("builtins", "getattr"), "x", "y"), 1), "loss": Made(Name("torch.nn.modules.loss", "MSELoss")),
    }  # fmt: skip
    content = {"D": strange, "g_ema": STATE, "latent_avg": AVERAGE, **strange}
    assert_same(generator_of(reading.read(save(tmp_path / "x.pt", content))), tiny.generator())
    assert not owned.exists()


def test_objects_in_the_place_of_what_is_needed_are_named(tmp_path):
    hostile = Made(Name("os", "system"), "true")
    for content, text in (
        ({"g_ema": hostile}, r"holds g_ema \(an object of os.system, which is not run\), and no generator"),
        ({"g_ema": hostile, "g": STATE}, "holds g_ema, a moving average that cannot be read"),
        (hostile, "holds an object of os.system, which is not run, and no generator"),
        ({"g_ema": STATE | {"convs.0.conv.weight": hostile}}, "convs.0.conv.weight is an object of os.system, which is not"),
        ({"g_ema": STATE | {"input.input": np.array([{}], object)}}, "input.input is an array of objects"),
    ):
        torch_files.save_pickle(tmp_path / "x.pkl", content)
        with pytest.raises(ValueError, match=text):
            stylegan2.load(reading.read(tmp_path / "x.pkl"), "theirs")


def test_a_numpy_number_is_data(tmp_path):
    """A file of torch, whose own reader refuses it."""
    content = reading.read(DATA / "gen_numpy_scalar.pt")
    assert isinstance(content["best_fid"], np.floating)
    assert generator_of(content).config.size == 16


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_pickles_of_any_protocol(tmp_path, protocol):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"g_ema": STATE, "latent_avg": AVERAGE}, protocol))
    assert_same(generator_of(reading.read(tmp_path / "x.pkl")), tiny.generator())


def test_arrays_without_containers_and_with_many(tmp_path):
    np.savez(tmp_path / "x.npz", **STATE, latent_avg=AVERAGE)
    np.save(tmp_path / "x.npy", {"g_ema": STATE, "latent_avg": AVERAGE}, allow_pickle=True)
    for name in ("x.npz", "x.npy"):
        assert_same(generator_of(reading.read(tmp_path / name)), tiny.generator())


# --- networks of other forms ----------------------------------------------------------------------------------------------


def test_pictures_of_other_forms_are_named():
    colours = [name for name in STATE if name.startswith("to_rgb") and name.endswith(("conv.weight", ".bias"))]
    grey = STATE | {name: STATE[name][:, :1] for name in colours if "modulation" not in name}
    bare = {name: array for name, array in STATE.items() if not name.startswith(("to_rgb1.", "to_rgbs.0."))}
    wide = STATE | {"input.input": np.zeros((1, 8, 4, 6), np.float32)}
    wide_too = NVIDIA | {"synthesis.b4.const": np.zeros((8, 4, 6), np.float32)}
    for arrays, text in (
        (grey, "theirs draws pictures of 1 colour channel"),
        (bare, "theirs has no ToRGB in every block .configs a to d"),
        (wide, "theirs starts from 4 x 6 values and not from 4 x 4, for pictures that are not square"),
        (wide_too, "theirs starts from 4 x 6 values"),
    ):
        with pytest.raises(ValueError, match=text):
            stylegan2.load({"g_ema": arrays}, "theirs")


def test_values_that_are_not_finite_are_refused():
    kernel = np.where(np.arange(3) < 2, np.nan, STATE["convs.1.conv.weight"])
    with pytest.raises(ValueError, match=r"theirs has values .* in convs.1.conv.weight \(216 of 324\)"):
        stylegan2.load({"g_ema": STATE | {"convs.1.conv.weight": kernel}}, "theirs")
