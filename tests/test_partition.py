"""Several prompts, devices and processes give the edits that one prompt on one device gives."""

import json
import os
import re
import socket
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import REPOSITORY, run_config
from jax.sharding import AbstractMesh, AxisType

from benchmarks import ahead
from coral_jax.artifact import load_edit
from coral_jax.config import Settings, make, prompts_of
from coral_jax.latents import w_plus_of_seeds
from coral_jax.runtime.target import aimed_at
from coral_jax.step import init_state
from coral_jax.training.checkpoints import Checkpoints, newest_of_all
from coral_jax.training.logs import read_metrics
from coral_jax.training.loop import Run, train, train_all
from coral_jax.training.partition import DATA, PROMPT, join, make_mesh, make_step, shares

PROMPTS = ["surprised", "blue eyes"]
NAMES = ["surprised", "blue_eyes"]  # of their folders
TWO_DEVICES = " --xla_force_host_platform_device_count=2"


def assert_alike(folder, other, weights_dir):
    """The same images, masks and losses, to rounding.

    Not the same weights: Adam divides a gradient of nearly zero by its own size, and with it its rounding.
    """
    edits = [load_edit(each, weights_dir) for each in (folder, other)]
    codes = w_plus_of_seeds(edits[0].domain.generator, list(range(4)), 0.8)
    drawn = [edit.apply(codes, tau=0.0) for edit in edits]
    assert np.abs(drawn[1][0] - drawn[1][1]).max() > 0.01  # an edit at all
    for ours, theirs in zip(*map(jax.tree.leaves, drawn), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())
    for ours, theirs in zip(*(read_metrics(each / "metrics.jsonl") for each in (folder, other)), strict=True):
        assert ours["step"] == theirs["step"]
        for name in ours.keys() - {"step", "seconds_per_step"}:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def alone(trained, weights_dir, tmp_path_factory):
    """The folder of each prompt trained alone."""
    folder = tmp_path_factory.mktemp("alone") / "blue_eyes"
    config = run_config(weights_dir)
    config.prompt = "blue eyes"
    train(config, folder)
    return {"surprised": trained.folder, "blue_eyes": folder}


def names(folder):
    return {entry.name.split(".out.")[0] for entry in folder.iterdir()}


def test_prompts_trained_together_leave_what_each_alone_leaves(alone, config, weights_dir, tmp_path, monkeypatch):
    """Killed on the way, after the first of two prompts has saved its fourth step, and going on from the second."""
    runs = [Run("surprised", tmp_path / "surprised"), Run("blue eyes", tmp_path / "blue_eyes")]
    saves = []

    def save(self, step, state, original=Checkpoints.save):
        original(self, step, state)
        saves.append(step)
        if saves == [2, 2, 4]:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save)
    with pytest.raises(KeyboardInterrupt):
        train_all(config, runs)
    summaries = train_all(config, runs)
    assert saves == [2, 2, 4, 4, 4, 6, 6]
    assert [summary["prompt"] for summary in summaries] == PROMPTS
    assert summaries[0]["resumed_from"] == 2 and summaries[0]["prompts_together"] == 2
    for name, folder in alone.items():
        assert names(tmp_path / name) == names(folder)
        own, other = (json.loads((each / "config.json").read_text()) for each in (tmp_path / name, folder))
        assert own == other
        assert_alike(tmp_path / name, folder, weights_dir)
    assert train_all(config, runs) == summaries  # finished: left alone


def test_runs_start_from_the_newest_step_that_all_have(domain, tmp_path):
    fresh = jax.device_get(init_state(Settings("segment_global"), domain.frozen("surprised"), jax.random.key(0)))
    with Checkpoints(tmp_path / "a") as first, Checkpoints(tmp_path / "b") as second:
        assert newest_of_all([first, second], fresh) == [fresh, fresh]
        for step in (2, 4):
            first.save(step, fresh._replace(step=np.int32(step)))
        second.save(2, fresh._replace(step=np.int32(2)))
        assert [int(state.step) for state in newest_of_all([first, second], fresh)] == [2, 2]


@pytest.mark.parametrize(
    "text, message",
    [
        (" ; ", "no prompts; give several as"),
        ("Blue eyes;blue  eyes", "would share the folder blue_eyes"),
        ("lost.txt", "there is no file lost.txt; write the prompts into it"),
    ],
)
def test_prompts_that_cannot_be_told_apart_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        prompts_of(text)


def test_prompts_come_from_the_command_line_or_a_file(tmp_path):
    expected = {"happy": "happy", "blue_eyes": "blue eyes"}
    assert prompts_of("happy; blue eyes;") == expected
    (tmp_path / "prompts.txt").write_text("happy\n\nblue eyes\n")
    assert prompts_of(str(tmp_path / "prompts.txt")) == expected
    assert len(prompts_of(";".join(f"prompt number {i}" for i in range(40)))) == 40  # longer than a file's name can be
    assert make("happy").prompts is None


@pytest.mark.parametrize("hosts", ["here", "10.0.0.1,2,0", "10.0.0.1:99,2,2"])
def test_hosts_that_cannot_be_read_are_explained(hosts):
    with pytest.raises(ValueError, match="cannot be read; give --hosts=auto, or --hosts=ADDRESS:PORT"):
        join(hosts)


def chips(count, hosts=1):
    """Devices as `make_mesh` sees them."""
    return [SimpleNamespace(id=index, process_index=index * hosts // count) for index in range(count)]


@pytest.mark.parametrize(
    "devices, prompts, faces, expected",
    [
        (1, 8, 3, (1, 1)), (8, 1, 3, (1, 3)), (8, 8, 3, (8, 1)), (8, 2, 4, (2, 4)), (4, 8, 4, (1, 4)), (8, 3, 1, (3, 1)),
        (16, 8, 3, (4, 3)),  # 12 of them: 16 would be no faster
        (2, 1, 3, (1, 2)), (4, 1, 5, (1, 3)),  # unevenly, which one device each would not share at all
    ],
)  # fmt: skip
def test_the_mesh_shares_the_work_of_a_step(devices, prompts, faces, expected, monkeypatch):
    monkeypatch.setattr(jax, "make_mesh", lambda shape, *_, **__: shape)
    assert make_mesh(prompts, faces, chips(devices)) == expected


@pytest.mark.parametrize(
    "prompts, faces, expected",
    [
        (1, 16, (1, 16)), (8, 3, (8, 2)), (16, 3, (16, 1)),
        (4, 3, "use 12 of the 16 devices of all hosts; give --config.batch_size=4"),
        (1, 3, "use 3 of the 16 devices of all hosts; give --config.batch_size=16"),
    ],
)  # fmt: skip
def test_a_pod_slice_of_four_hosts_is_used_whole_or_refused(prompts, faces, expected, monkeypatch):
    monkeypatch.setattr(jax, "make_mesh", lambda shape, *_, **__: shape)
    if isinstance(expected, tuple):
        assert make_mesh(prompts, faces, chips(16, hosts=4)) == expected
    else:
        with pytest.raises(ValueError, match=expected):
            make_mesh(prompts, faces, chips(16, hosts=4))


@pytest.mark.parametrize(
    "faces, devices, expected",
    [(16, 16, (1,) * 16), (3, 2, (2, 1)), (5, 3, (2, 2, 1)), (10, 3, (4, 4, 2)), (5, 2, ()), (3, 4, ())],
)
def test_faces_are_divided_so_that_every_device_draws_as_many(faces, devices, expected):
    assert shares(faces, devices) == expected


@pytest.mark.parametrize("shape, prompts, faces", [((1, 16), 1, 16), ((8, 2), 8, 3)])
def test_a_pod_slice_lowers_with_one_sum(shape, prompts, faces, domain):
    """16 chips, for a TPU, which is not here: what the compiler makes of it is read in test_ahead."""
    mesh = AbstractMesh(shape, (PROMPT, DATA), axis_types=(AxisType.Auto,) * 2)
    arguments = ahead.shapes_of(mesh, lambda: domain.frozen("surprised"), Settings(batch_size=faces), prompts)
    with aimed_at("tpu"):
        text = make_step(mesh).trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()
    met = re.findall(r"stablehlo\.(all_reduce|all_gather|all_to_all|collective_permute|reduce_scatter)", text)
    assert met == ["all_reduce"] and "num_partitions = 16" in text


PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np
from coral_jax.config import Settings
from coral_jax.domains import load_domain
from coral_jax.step import draw_z, init_state, train_step
from coral_jax.training import partition

frozen, key = load_domain("tiny").frozen("surprised"), jax.random.key(1)
prompts = int(sys.argv[1])
own = jnp.array([0.1, 0.4][:prompts])
settings = Settings("attention_mapper", batch_size=int(sys.argv[3]), lambda_l2=own)
state = jax.device_get(jax.jit(init_state)(settings, frozen, key))
frozen = frozen._replace(text=jnp.stack([frozen.text, -frozen.text][:prompts]))
state = partition.stack([state] * prompts)
one = jax.jit(lambda s, f: train_step(s, f, draw_z(f, key, s.step, settings), settings))(state, frozen)
mesh = partition.make_mesh(prompts, settings.batch_size if sys.argv[2] == "data" else 1)
print(dict(mesh.shape), file=sys.stderr)
placed = partition.place(state, mesh, partition.STATE), partition.place(frozen, mesh, partition.FROZEN)
compiled = partition.make_step(mesh).lower(*placed, partition.place_key(key, mesh), settings).compile()
many = compiled(*placed, partition.place_key(key, mesh), settings)
gradients = zip(jax.tree.leaves(one[0].opt_state.mu), jax.tree.leaves(many[0].opt_state.mu), strict=True)
for a, b in gradients:
    np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4 * float(jnp.max(jnp.abs(a))))
for name in one[1]:
    np.testing.assert_allclose(many[1][name], one[1][name], rtol=1e-5, atol=1e-6, err_msg=name)
np.testing.assert_allclose(many[1]["loss/total"], one[1]["loss/total"], rtol=1e-6)
assert all(leaf.is_deleted() for leaf in jax.tree.leaves(placed[0].trainables))  # the state is donated
print(compiled.as_text())
"""


@pytest.mark.parametrize("prompts, axis, faces, sums", [(1, "data", 3, 1), (2, "data", 4, 1), (2, "prompt", 4, 0)])
def test_the_step_on_two_devices_meets_once(weights_dir, tmp_path, prompts, axis, faces, sums):
    """Exactly one all-reduce, of gradients and metrics together, and nothing gathered; the loss of one device.

    Of three faces, one device draws two and the other the third, twice.
    """
    environment = os.environ | {"CORAL_JAX_WEIGHTS": str(weights_dir)}
    environment["XLA_FLAGS"] = environment.get("XLA_FLAGS", "") + TWO_DEVICES
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(prompts), axis, str(faces)],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    operations = re.findall(r" (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)[\w-]*\(", done.stdout)
    assert operations == ["all-reduce"] * sums
    assert f"'{axis}': 2" in done.stderr


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def test_two_processes_go_on_from_one_and_give_its_edit(config, weights_dir, tmp_path, monkeypatch):
    """Two prompts, two faces, a device a process: from checkpoints of one device; the second process has no file."""
    config.method, config.batch_size, config.steps = "segment_global", 2, 4

    def runs(folder):
        return [Run(prompt, tmp_path / folder / name) for prompt, name in zip(PROMPTS, NAMES, strict=True)]

    saves = []

    def save(self, step, state, original=Checkpoints.save):
        original(self, step, state)
        saves.append(step)
        if saves == [2, 2]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Checkpoints, "save", save)
        train_all(config, runs("first"))
    port, processes = free_port(), []
    for index, folder in enumerate(("first", "second")):
        command = [
            sys.executable, "-m", "coral_jax.train", "--config=configs/surprised.py:domain=tiny,method=segment_global",
            f"--config.weights_dir={weights_dir}", "--config.log_every=1", "--config.checkpoint_every=2",
            "--config.sheet_seeds=0-2", "--config.batch_size=2", "--config.steps=4", "--config.prompts=surprised;blue eyes",
            f"--workdir={tmp_path / folder}", f"--hosts=localhost:{port},2,{index}",
        ]  # fmt: skip
        processes.append(subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True))
    try:
        errors = [process.communicate(timeout=600)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    assert not (tmp_path / "second").exists()
    train_all(config, runs("one"))
    for (_, found), (_, expected) in zip(runs("first"), runs("one"), strict=True):
        summary = json.loads((found / "summary.json").read_text())
        assert (summary["resumed_from"], summary["devices"], summary["prompts_together"]) == (2, 2, 2)
        assert_alike(found, expected, weights_dir)
