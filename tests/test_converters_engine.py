"""The mapping engine: both ways to the bit, and one error for all that does not fit."""

import numpy as np
import pytest
import tiny
from flax import nnx

from converters import engine
from converters.stylegan2 import nvidia_table
from coral_jax import weights
from coral_jax.models.stylegan2 import StyleGAN2

TABLE = nvidia_table(tiny.GENERATOR)


def abstract():
    """A generator of shapes alone."""
    return nnx.eval_shape(lambda: StyleGAN2(tiny.GENERATOR, nnx.Rngs(0)))


@pytest.fixture
def source():
    """Another implementation's arrays, with the weights of a tiny generator."""
    return engine.extract(tiny.generator(), TABLE)


@pytest.mark.parametrize(
    "layout, theirs",
    [
        (engine.SAME, (3,)),
        (engine.LINEAR, (3, 2)),
        (engine.CONV, (5, 4, 3, 2)),
        (engine.IMAGE, (4, 3, 2)),
        (engine.MODULATED, (1, 5, 4, 3, 2)),
        (engine.ONE, (1,)),
        (engine.axes(2, 0, 1), (4, 3, 2)),
        (engine.with_leading_ones(engine.SAME, 2), (1, 1, 3, 2)),
    ],
)
def test_layouts_go_both_ways(layout, theirs):
    array = np.random.default_rng(0).standard_normal(theirs).astype(np.float32)
    back = layout.write(layout.read(array))
    assert back.shape == theirs and back.tobytes() == array.tobytes()


def test_layouts_put_axes_where_ours_are():
    assert engine.LINEAR.read(np.zeros((3, 2))).shape == (2, 3)
    assert engine.CONV.read(np.zeros((5, 4, 3, 2))).shape == (3, 2, 4, 5)  # OIHW -> HWIO
    assert engine.MODULATED.read(np.zeros((1, 5, 4, 3, 2))).shape == (3, 2, 4, 5)
    assert engine.IMAGE.read(np.zeros((4, 3, 2))).shape == (3, 2, 4)
    assert engine.ONE.read(np.zeros(1)).shape == ()


def test_there_and_back_changes_no_bit(source):
    network = abstract()
    engine.fill(network, TABLE, source, "theirs")
    for name, variable in weights.named_variables(tiny.generator()).items():
        assert np.asarray(variable[...]).tobytes() == np.asarray(weights.named_variables(network)[name][...]).tobytes(), name
    again = engine.extract(network, TABLE)
    assert sorted(again) == sorted(source)
    assert all(np.array_equal(again[name], source[name]) for name in source)


def test_lists_everything_wrong_at_once_and_changes_nothing(source):
    del source["mapping.fc0.bias"], source["synthesis.b8.torgb.weight"]
    source["synthesis.b4.conv1.weight"] = source["synthesis.b4.conv1.weight"][:, :5]
    source["synthesis.b4.const"] = source["synthesis.b4.const"].reshape(-1)  # of another rank: no transposition fails
    source["synthesis.b9.weight"], source["a.resample_filter"] = np.zeros((2, 3)), np.zeros(4)
    network = tiny.generator()
    before = np.asarray(network.input[...])
    with pytest.raises(ValueError) as raised:
        engine.fill(network, TABLE, source, "theirs.pkl", ignored=(r".*\.resample_filter",))
    lines = str(raised.value).splitlines()
    assert "theirs.pkl does not fit StyleGAN2" in lines[0] and "give a checkpoint" in lines[0]
    assert sorted(line.strip() for line in lines[1:]) == [
        "unfilled: mapping.layers.0.bias, for lack of mapping.fc0.bias",
        "unfilled: to_rgbs.1.kernel, for lack of synthesis.b8.torgb.weight",
        "unused: synthesis.b9.weight (2, 3)",
        "wrong shape: synthesis.b4.const is (128,), for input it must be (8, 4, 4)",
        "wrong shape: synthesis.b4.conv1.weight is (8, 5, 3, 3), for convs.0.kernel it must be (8, 8, 3, 3)",
    ]
    np.testing.assert_array_equal(network.input[...], before)


def test_ignored_names_must_match_whole(source):
    source["resample_filter.more"] = np.zeros(1)
    with pytest.raises(ValueError, match=r"unused: resample_filter\.more"):
        engine.fill(abstract(), TABLE, source, "theirs", ignored=("resample_filter",))


def test_a_table_that_does_not_cover_the_network_is_an_error(source):
    table = {ours: entry for ours, entry in TABLE.items() if ours != "w_avg"}
    with pytest.raises(ValueError, match="unfilled: w_avg, for which the table has no name"):
        engine.fill(abstract(), table, source, "theirs")
    with pytest.raises(ValueError, match="do not cover each other: w_avg"):
        engine.extract(tiny.generator(), table)
    with pytest.raises(ValueError, match="the network has no extra, for theirs"):
        engine.fill(abstract(), TABLE | {"extra": ("theirs", engine.SAME)}, source, "theirs")


def test_half_precision_is_kept_where_asked_and_float32_otherwise(source, tmp_path):
    source["synthesis.b4.const"] = source["synthesis.b4.const"].astype(np.float16)
    source["mapping.w_avg"] = source["mapping.w_avg"].astype(np.float64)
    for keep_half, expected in ((True, np.float16), (False, np.float32)):
        network = abstract()
        engine.fill(network, TABLE, source, "theirs", keep_half=keep_half)
        assert network.input.dtype == expected and network.w_avg.dtype == np.float32
        weights.save(tmp_path / "g.safetensors", network)
        assert weights.load_tensors(tmp_path / "g.safetensors")[0]["input"].dtype == expected
        assert weights.load(tmp_path / "g.safetensors").input.dtype == np.float32


@pytest.mark.parametrize("dtype, value", [(np.float32, np.nan), (np.float16, -np.inf), (np.float64, -1e39)])
@pytest.mark.parametrize("keep_half", [True, False])
def test_values_that_are_not_finite_are_refused_by_their_name(source, dtype, value, keep_half):
    for name in ("synthesis.b8.conv0.bias", "mapping.w_avg"):
        source[name] = source[name].astype(dtype)
        source[name][-2:] = value
    with pytest.raises(ValueError) as raised:
        engine.fill(abstract(), TABLE, source, "theirs.pkl", keep_half=keep_half)
    line = str(raised.value)
    assert line.startswith("theirs.pkl has values that are NaN, infinite or beyond float32 in ") and "\n" not in line
    assert "synthesis.b8.conv0.bias (2 of 6)" in line and "mapping.w_avg (2 of 5)" in line


def test_integers_in_the_place_of_weights_are_refused(source):
    source["synthesis.b4.const"] = np.ones(source["synthesis.b4.const"].shape, np.int8)
    with pytest.raises(ValueError, match="wrong type: synthesis.b4.const holds int8 values"):
        engine.fill(abstract(), TABLE, source, "theirs")
