"""The config: every file loads, every field is read, and how values are chosen."""

import importlib.util
import re
from pathlib import Path

import jax
import pytest
from conftest import REPOSITORY

from coral_jax.config import TAU, Resolved, Settings, base, check_tau, make, resolve
from coral_jax.methods import ABLATIONS, METHODS

FILES = sorted((REPOSITORY / "configs").glob("*.py"))
PROMPTS = {  # of the paper's figures and table, and the four that toons add
    "surprised", "happy", "blue eyes", "mohawk hairstyle", "beard", "mustache", "purple hair", "lipstick", "makeup",
    "long curly hair", "curly hair", "curly hair and lipstick", "makeup and afro hairstyle",
    "glasses", "sad", "angry", "long hair",
}  # fmt: skip


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_a_file_for_every_prompt():
    assert {load(path).get_config().prompt for path in FILES} == PROMPTS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_gives_a_config_and_its_command(path):
    module = load(path)
    assert f"python -m coral_jax.train --config=configs/{path.name}" in module.__doc__
    config = module.get_config("method=segment_global,domain=tiny,steps=7")
    assert (config.method, config.domain, config.steps) == ("segment_global", "tiny", 7)
    assert set(config) == set(base()) and config.is_locked
    resolve(config, {})


def test_every_field_is_read_by_the_program():
    source = "".join(path.read_text() for path in Path(REPOSITORY, "coral_jax").rglob("*.py"))
    hyper = set(Settings.__dataclass_fields__) - {"method"}  # read by name, in `resolve`
    for field in set(base()) - hyper - {"tau"}:
        assert re.search(rf"(?<!_)config\.{field}\b(?! =)", source), f"config.{field} is never read"
    weights = {term.weight for method in (METHODS | ABLATIONS).values() for term in method.terms} - {None}
    assert all(field.startswith("lambda_") for field in weights)  # which `losses.weighted_sum` reads by name
    for field in hyper - weights:
        assert re.search(rf"(?<!_)settings\.{field}\b(?! =)", source), f"settings.{field} is never read"


def test_a_step_is_compiled_for_method_and_batch_sizes_only():
    """Settings are a pytree of their other numbers, so that one program serves every rate, every lambda and any length."""
    leaves, tree = jax.tree.flatten(Settings())
    assert len(leaves) == len(Settings.__dataclass_fields__) - 3
    static = ("method", "batch_size", "microbatch_size")
    others = Settings(**{name: 0.25 for name in Settings.__dataclass_fields__ if name not in static})
    assert jax.tree.structure(others) == tree and jax.tree.leaves(others) == [0.25] * len(leaves)
    for changed in (Settings(method="segment_global"), Settings(batch_size=4), Settings(microbatch_size=1)):
        assert jax.tree.structure(changed) != tree


@pytest.mark.parametrize(
    "field, value",
    [("truncation", 0.5), ("learning_rate", 0.3), ("region_learning_rate", 0.2), ("lambda_l2", 1.0),
     ("lambda_id", 2.0), ("lambda_area", 3.0), ("lambda_tv", 4.0), ("batch_size", 5), ("method", "segment_mapper")],
)  # fmt: skip
def test_every_hyper_parameter_reaches_the_step(field, value):
    assert getattr(resolve(make("happy", "", **{field: value}), {}).settings, field) == value


def test_every_hyper_parameter_of_the_step_has_a_field():
    assert set(Settings.__dataclass_fields__) <= set(base())


def test_the_config_goes_before_the_domains_method_before_the_domain_before_ours():
    defaults = {
        "tau": 0.5, "lambda_l2": 1.0, "lambda_id": 1.0, "lambda_area": 1.0,
        "methods": {"segment_global": {"lambda_l2": 2.0, "lambda_id": 2.0, "steps": 9}},
    }  # fmt: skip
    config = make("happy", "method=segment_global,lambda_l2=3")
    assert resolve(config, defaults) == Resolved(
        Settings(method="segment_global", lambda_l2=3.0, lambda_id=2.0, lambda_area=1.0, steps=9), 0.5
    )  # fmt: skip
    other = resolve(make("happy", "method=attention_global"), defaults)
    assert (other.settings.lambda_l2, other.settings.steps, other.tau) == (1.0, 20_000, 0.5)
    assert resolve(make("happy"), {}) == Resolved(Settings(), TAU)


def test_an_override_to_zero_counts():
    assert resolve(make("happy", "lambda_l2=0,tau=0"), {"lambda_l2": 1.0, "tau": 0.5}) == (Settings(lambda_l2=0.0), 0.0)


@pytest.mark.parametrize("arg", ["steps", "methd=segment_global", "method=a=b,x", "steps=many", "=3"])
def test_a_part_that_cannot_be_read_is_explained(arg):
    with pytest.raises(ValueError, match="after the config file's name; (type FIELD=VALUE|steps is int)"):
        make("happy", arg)


def test_misspelt_fields_cannot_be_set():
    with pytest.raises(AttributeError, match="steps"):
        make("happy").stpes = 3


@pytest.mark.parametrize(
    "fields, message",
    [({"steps": 0}, "steps is 0; give at least 1"), ({"batch_size": 0}, "batch_size is 0"),
     ({"microbatch_size": -1}, "microbatch_size is -1"),
     ({"checkpoint_every": 0}, "checkpoint_every is 0"), ({"log_every": -1}, "log_every is -1"),
     ({"lambda_id": -0.1}, "lambda_id is -0.1"), ({"learning_rate": float("nan")}, "learning_rate is nan"),
     ({"method": "styleclip_optimization", "microbatch_size": 2}, "learns all at once; leave microbatch_size out"),
     ({"tau": 1.5}, "tau is 1.5"), ({"method": "segmnt"}, "unknown method 'segmnt'; choose one of segment_global")],
)  # fmt: skip
def test_values_out_of_range_are_explained(fields, message):
    with pytest.raises(ValueError, match=message):
        resolve(make("happy", "", **fields), {})


def test_a_domains_unknown_default_is_explained():
    with pytest.raises(ValueError, match=r"unknown names \['lambda_aera'\]; known: batch_size, microbatch_size, truncation"):
        resolve(make("happy"), {"lambda_aera": 1.0})


def test_tau_has_the_ends_of_its_range():
    assert check_tau(0.0) == 0.0 and check_tau(1.0) == 1.0
    with pytest.raises(ValueError, match="tau is nan"):
        check_tau(float("nan"))
