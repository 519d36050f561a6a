"""The configuration of a run: every field with its default, and how a run's settings follow from it."""

import dataclasses
import re
from pathlib import Path
from typing import NamedTuple

import ml_collections
from ml_collections.config_dict import placeholder

from coral_jax.methods import get_method
from coral_jax.step import Settings

STEPS, TAU = 20_000, 0.85  # the paper's (section 4.1), where neither the config nor the domain says
_HYPER = tuple(field.name for field in dataclasses.fields(Settings) if field.name not in ("method", "batch_size"))


class RunSettings(NamedTuple):
    """Everything that a config and a domain's defaults decide together."""

    step: Settings
    steps: int
    tau: float


def base() -> ml_collections.ConfigDict:
    """Every field with its default; None means the domain's own value for the method."""
    config = ml_collections.ConfigDict()
    # What to edit, and how.
    config.prompt = ""  # what the edited image should show
    config.prompts = placeholder(str)  # several, instead: "happy;blue eyes", or a file with one a line
    config.domain = "toons"  # generator and the networks that go with it
    config.method = "attention_mapper"  # {segment,attention}_{global,mapper}: region selector and latent editor
    config.segmenter = placeholder(str)  # of the domain's segmenters, for segment_*; None: its default
    config.weights_dir = placeholder(str)  # folder of other domains; None: CORAL_JAX_WEIGHTS, else the user's cache
    # Training.
    config.dtype = "float32"  # what the frozen networks compute in: float32, or bfloat16 (faster on GPU and TPU)
    config.seed = 0  # of the trainables' start and of the faces drawn
    config.steps = placeholder(int)
    config.batch_size = 3  # faces per step, the paper's
    config.truncation = placeholder(float)  # psi of w: 1 draws every face, 0 the mean face
    config.learning_rate = placeholder(float)  # Adam, of the latent editor
    config.region_learning_rate = placeholder(float)  # Adam, of the region selector
    # Weights of the loss terms, equations 6 and 7; that of the CLIP term is 1.
    config.lambda_l2 = placeholder(float)  # size of the latent edit
    config.lambda_id = placeholder(float)  # keep the person
    config.lambda_area = placeholder(float)  # keep the edited area small
    config.lambda_tv = placeholder(float)  # keep masks smooth (attention only)
    # Use of the edit.
    config.tau = placeholder(float)  # mask values below it become zero
    config.sheet_seeds = "0-7"  # faces on sheet.png, and of the areas in summary.json; such as 0-7 or 3,5,9
    # Records.
    config.log_every = 10  # steps between rows of metrics.jsonl
    config.checkpoint_every = 100  # steps between checkpoints
    return config.lock()


def make(prompt: str, arg: str | None = "", **fields: object) -> ml_collections.ConfigDict:
    """The config of a prompt, with `fields` of its own; arg is the command line's "method=segment_global,domain=toons".

    ValueError for a part of arg that is not KEY=VALUE or names no field.
    """
    config = base()
    config.prompt = prompt
    config.update(fields)
    for part in filter(None, (arg or "").split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in config:
            known = ", ".join(config)
            raise ValueError(f"{part!r} after the config file's name; type FIELD=VALUE with one of: {known}")
        kind = config.get_type(key)
        try:
            config[key] = value if kind is str else kind(value)
        except ValueError as error:
            raise ValueError(f"{part!r} after the config file's name; {key} is {kind.__name__}") from error
    return config


def prompts_of(text: str) -> dict[str, str]:
    """Several prompts, "happy;blue eyes" or the name of a file with one a line: each by its folder's name.

    ValueError for none, and for two that would share a folder.
    """
    path = Path(text)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(";")
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ValueError('no prompts; give several as --config.prompts="happy;blue eyes", or a file with one a line')
    folders = {}
    for prompt in prompts:
        name = re.sub(r"\W+", "_", prompt.lower()).strip("_")
        if name in folders:
            raise ValueError(f"the prompts {folders[name]!r} and {prompt!r} would share the folder {name}; leave one out")
        folders[name] = prompt
    return folders


def resolve(config: ml_collections.ConfigDict, defaults: dict) -> RunSettings:
    """Settings of a run: the config's where it has one, else the domain's `defaults` for the method, else ours.

    ValueError for an unknown method and for values out of range.
    """
    method = get_method(config.method).name
    chosen = _domain_defaults(defaults, method)
    chosen |= {key: config[key] for key in (*_HYPER, "steps", "tau") if config[key] is not None}
    steps, tau = chosen.pop("steps", STEPS), chosen.pop("tau", TAU)
    for name, value in (("steps", steps), ("batch_size", config.batch_size), ("log_every", config.log_every),
                        ("checkpoint_every", config.checkpoint_every)):  # fmt: skip
        if value < 1:
            raise ValueError(f"{name} is {value}; give at least 1, such as --config.{name}=100")
    for name, value in chosen.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value}; give a number of at least 0 with --config.{name}=VALUE")
    return RunSettings(Settings(method=method, batch_size=config.batch_size, **chosen), steps, check_tau(tau))


def check_tau(tau: float) -> float:
    """Returns tau; ValueError outside [0, 1]."""
    if not 0 <= tau <= 1:
        raise ValueError(f"tau is {tau}; give a number from 0 (masks as they are) to 1, such as {TAU}")
    return tau


def _domain_defaults(defaults: dict, method: str) -> dict:
    own = {key: value for key, value in defaults.items() if key != "methods"}
    own |= defaults.get("methods", {}).get(method, {})
    unknown = sorted(own.keys() - {*_HYPER, "steps", "tau"})
    if unknown:
        known = ", ".join(("steps", "tau", *_HYPER))
        raise ValueError(f"the settings in domain.json have unknown names {unknown}; known: {known}")
    return own
