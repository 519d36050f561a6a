"""Compiling for chips that are not here: what is read from a program, and one program for a TPU where that can be compiled."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from conftest import REPOSITORY
from jax.sharding import AbstractMesh

from benchmarks import ahead, hlo, targets
from coral_jax.config import Settings
from coral_jax.models.ops import conv2d
from coral_jax.training import partition

TPU_PROGRAM = """HloModule jit_step, is_scheduled=true

FileNames
1 "src/coral_jax/models/ops.py"
2 "lib/numpy.py"

FunctionNames
1 "conv2d"
2 "stack"

FileLocations
1 {file_name_id=1 function_name_id=1 line=75 end_line=75 column=4 end_column=8}
2 {file_name_id=2 function_name_id=2 line=9 end_line=9 column=4 end_column=8}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=1}


%fused (p: f32[2,4]) -> f32[2,4] {
  %p = f32[2,4]{1,0} parameter(0)
  ROOT %n = f32[2,4]{1,0} negate(%p), backend_config={"estimated_cycles":"999"}
}

ENTRY %main (a: f32[2,4]) -> bf16[2,4] {
  %a = f32[2,4]{1,0:T(8,128)} parameter(0)
  %fusion.1 = f32[2,4]{1,0:T(8,128)} fusion(%a), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/neg" stack_frame_id=2}, backend_config={"estimated_cycles":"1200"}
  %sum = (f32[2,4]{1,0}, f32[2,4]{1,0}) all-reduce-start(%fusion.1), channel_id=1, to_apply=%add
  %call = (f32[2,4]{1,0}, u8[4096]{0}) custom-call(%a, %fusion.1), custom_call_target="product"
  ROOT %convert = bf16[2,4]{1,0} convert(%fusion.1), metadata={stack_frame_id=1}, backend_config={"estimated_cycles":"30"}
}
"""  # noqa: E501


def test_cycles_bytes_and_lines_are_read_from_a_tpus_program():
    found = {one.name: one for one in hlo.instructions(TPU_PROGRAM)}
    assert list(found) == ["a", "fusion.1", "sum", "call", "convert"]
    assert found["fusion.1"] == ("fusion.1", "fusion", 64, 1200, "ops.py:75 conv2d")  # the caller of a library's line
    assert found["convert"] == ("convert", "convert", 48, 30, "ops.py:75 conv2d")
    assert (found["a"].moved, found["call"].moved, found["call"].source) == (0, 96, "")  # no work space of 4096 bytes
    assert hlo.collectives(TPU_PROGRAM) == {"all-reduce": 1}


def test_what_is_in_a_loop_counts_as_often_as_it_runs():
    """Two loops, one in the other, in what jax prints today; the program for a CPU has no cycles."""

    def inner(x):
        return jax.lax.fori_loop(0, 5, lambda _, y: jnp.sin(y @ y), x)

    def moved(program):
        text = jax.jit(program).lower(jnp.ones((64, 64))).compile().as_text()
        assert hlo.has_loops(text) == (program is not jnp.sin)
        return sum(one.moved for one in hlo.instructions(text))

    once, rounds = moved(inner), moved(lambda x: jax.lax.fori_loop(0, 7, lambda _, y: inner(y), x))
    assert moved(jnp.sin) == 2 * 4 * 64 * 64
    assert 5 * 4 * 4 * 64 * 64 <= once < 5 * 9 * 4 * 64 * 64  # a product and a sine, and copies
    assert 6 * once < rounds < 9 * once


def test_a_loop_whose_rounds_are_not_said_runs_as_often_as_its_condition_says():
    loop = """
%body (x: s32[]) -> s32[] {
  %x = s32[]{:T(128)} parameter(0)
  ROOT %n = s32[]{:T(128)} negate(%x), backend_config={"estimated_cycles":"7"}
}

%rounds (y: s32[]) -> pred[] {
  %limit = s32[]{:T(128)} constant(3)
  %y = s32[]{:T(128)} parameter(0)
  ROOT %lt.0 = pred[]{:T(512)} compare(%y, %limit), direction=LT
}

ENTRY %main (a: s32[]) -> s32[] {
  %a = s32[]{:T(128)} parameter(0)
  ROOT %while = s32[]{:T(128)} while(%a), condition=%rounds, body=%body
}
"""
    assert [(one.name, one.moved, one.cycles) for one in hlo.instructions(loop)] == [("a", 0, 0), ("x", 0, 0), ("n", 24, 21)]


def test_lines_are_found_in_what_jax_prints_today():
    compiled = jax.jit(conv2d).lower(jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 4, 4))).compile()
    assert any(one.source.endswith("conv2d") for one in hlo.instructions(compiled.as_text()))


def test_the_table_says_what_the_compiler_said():
    """Of a program for this process's CPU, which has no cycles, as if it were for another chip."""
    compiled = jax.jit(lambda x, k: jnp.sum(conv2d(conv2d(x, k), k))).lower(
        jnp.ones((2, 32, 32, 8)), jnp.ones((3, 3, 8, 8))
    ).compile()  # fmt: skip
    said = ahead.described(compiled, targets.CHIPS["v5e"], 3, AbstractMesh((1, 1), ("prompt", "data")), "float32")
    assert said["argument_bytes"] == 4 * (2 * 32 * 32 * 8 + 9 * 64) and said["flops"] > 1e6
    assert said["temporary_bytes"] > 2 * 32 * 32 * 8 * 4 and said["collectives"] == {}
    own = said["temporary_bytes"] / 3
    assert said["largest_batch_by_proportion"] == pytest.approx((16e9 - said["program_bytes"]) / own + 3, abs=1)
    row = {"seconds_compile": 1.0, "devices": 1, "of_devices": 4} | said
    shown = ahead.rows({"v5e": row, "form of cpu": row})
    assert "| one device's program | v5e | form of cpu |" in shown and "| 1 of 4 | 1 of 4 |" in shown
    assert "| - | - |" in shown and "| never | never |" in shown and "fits; by proportion, batch" in shown
    assert shown.count("conv2d") >= 2


def test_operations_are_counted_before_compiling_where_no_compiler_counts_them(domain):
    settings = Settings("attention_mapper", 3)
    mesh = partition.make_mesh(1, 1, jax.devices()[:1])

    def make():
        return domain.frozen("surprised")

    traced = ahead.flops_as_traced(make, settings, 1)
    program = partition.make_step(mesh).lower(*ahead.shapes_of(mesh, make, settings, 1)).compile()
    assert traced == pytest.approx(program.cost_analysis()["flops"], rel=0.2)


@pytest.mark.parametrize("target", ["v5", "v5e:4", "h100:2x2", "v5e:", "v6e:2x2x2"])
def test_unknown_targets_are_explained(target):
    with pytest.raises(ValueError, match=f"--target={target} is unknown; give v5e or v6e for one chip, v5e:2x2"):
        targets.chip_of(target)


@pytest.mark.parametrize("target, extra", [("v5e:2x2", "tpu-compile"), ("h100", "gpu-compile")])
def test_what_is_missing_is_said_with_the_command_that_gets_it(target, extra, monkeypatch):
    def missing(*_, **__):
        raise RuntimeError("no plugin")

    monkeypatch.setattr(targets.topologies, "get_topology_desc", missing)
    with pytest.raises(ValueError, match=rf'nothing here compiles for {target} \(no plugin\); pip install -e ".\[{extra}\]"'):
        targets.devices_of(target)


def test_forms_of_other_platforms_go_with_a_target_only():
    command = [sys.executable, "-m", "benchmarks.step", "--compare=cpu"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1 and "--compare=cpu goes with --target; without it, give --compare=naive" in done.stderr


def test_another_revision_compiles_its_own_form(tmp_path, monkeypatch):
    """In a folder of its own, which goes first; a revision from before that command is refused."""

    def git(*words):
        name = ["-c", "user.name=me", "-c", "user.email=me@here"]
        subprocess.run(["git", *name, *words], cwd=tmp_path, check=True, capture_output=True)

    def commit(file):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(file)
        git("add", file)
        git("commit", "-m", file)

    def in_own_process(module, arguments, environment, folder):
        files = {str(path.relative_to(folder)) for path in Path(folder).rglob("*.py")}
        return {"run": [module, *arguments], "files": files, "first": environment["PYTHONPATH"] == folder}

    git("init")
    commit("coral_jax/step.py")
    commit("benchmarks/step.py")
    commit("benchmarks/ahead.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ahead.measure, "in_own_process", in_own_process)
    found = ahead.of_revision("HEAD", ["--target=v5e"], {})
    assert found["run"] == ["benchmarks.step", "--target=v5e"] and found["first"]
    assert found["files"] == {"coral_jax/step.py", "benchmarks/step.py", "benchmarks/ahead.py"}
    with pytest.raises(ValueError, match="--compare=HEAD~1 cannot compile for other devices; give a later revision"):
        ahead.of_revision("HEAD~1", [], {})
    with pytest.raises(ValueError, match=r"--compare=nonesuch is neither a form \(cpu, gpu, tpu\) nor a revision"):
        ahead.of_revision("nonesuch", [], {})


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason='compiling for a TPU needs: pip install -e ".[tpu-compile]"'
)
def test_a_step_compiles_for_a_pod_slice_of_four_hosts(weights_dir, tmp_path):
    """8 prompts x batch 3 on all of its chips: one sum, nothing gathered, in what the TPU's compiler makes of it."""
    command = [sys.executable, "-m", "benchmarks.step", "--target=v5e:4x4", "--domain=tiny", "--prompts=8", "--batch=3"]
    environment = os.environ | {"CORAL_JAX_WEIGHTS": str(weights_dir)}
    command += ["--dtype=bfloat16", f"--json={tmp_path / 'step.json'}"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "step.json").read_text())["forms"].values()
    assert (found["devices"], found["of_devices"], found["collectives"]) == (16, 16, {"all-reduce": 1})
    assert 0 < found["argument_bytes"] < found["program_bytes"] < found["memory_bytes"]  # temporaries lie in the core
    assert found["flops"] > 0 and found["estimated_cycles"] > 0 and len(found["costliest"]) == 10
    assert "| devices meet | 1 all-reduce |" in done.stdout and "16 of 16" in done.stdout
