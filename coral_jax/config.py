"""The configuration of a run: every field with its default, and how a run's settings follow from it."""

import dataclasses
import os
import re
from pathlib import Path
from typing import NamedTuple

import ml_collections
from ml_collections.config_dict import placeholder

from coral_jax.latents import parse_seeds
from coral_jax.methods import AUTHORS, get_method
from coral_jax.step import Settings

STEPS, TAU = Settings.steps, 0.85  # the paper's (section 4.1), where neither the config nor the domain says
_HYPER = tuple(field.name for field in dataclasses.fields(Settings) if field.name != "method")


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
    config.method = "attention_mapper"  # a name of coral_jax.methods: CORAL's four, baselines, ablations
    config.segmenter = placeholder(str)  # of the domain's segmenters, for segment_*; None: its default
    config.weights_dir = placeholder(str)  # folder of other domains; None: CORAL_JAX_WEIGHTS, else the user's cache
    # Training.
    config.dtype = "float32"  # what the frozen networks compute in: float32, or bfloat16 (faster on GPU and TPU)
    config.loss_resolution = placeholder(int)  # draw the losses' images at no more than this (px); None: in full
    config.seed = 0  # of the trainables' start and of the faces drawn
    config.steps = placeholder(int)
    config.batch_size = placeholder(int)  # faces per step; None: 3, the paper's, or what a baseline's authors take
    config.truncation = placeholder(float)  # psi of w: 1 draws every face, 0 the mean face
    config.learning_rate = placeholder(float)  # of the latent editor
    config.region_learning_rate = placeholder(float)  # of the region selector
    # Weights of the loss terms, equations 6 and 7; that of the CLIP term is 1.
    config.lambda_l2 = placeholder(float)  # size of the latent edit
    config.lambda_id = placeholder(float)  # keep the person
    config.lambda_area = placeholder(float)  # keep the edited area small
    config.lambda_tv = placeholder(float)  # keep masks smooth (attention only)
    # Use of the edit.
    config.tau = placeholder(float)  # mask values below it become zero
    config.strength = placeholder(float)  # what alpha is multiplied by
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

    ValueError for none, for a file that is not there, and for two that would share a folder.
    """
    is_file = os.path.isfile(text)  # False, too, for what is too long to be a name
    if not is_file and text.endswith(".txt"):
        raise ValueError(f"there is no file {text}; write the prompts into it, one a line, or give them as \"happy;blue eyes\"")
    lines = Path(text).read_text(encoding="utf-8").splitlines() if is_file else text.split(";")
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
    method = get_method(config.method)
    chosen = _domain_defaults(defaults, method.name)
    chosen |= {key: config[key] for key in (*_HYPER, "tau") if config[key] is not None}
    if method.per_face:  # every step sees the same faces, the sheet's
        chosen["batch_size"] = len(parse_seeds(config.sheet_seeds))
    tau, step = chosen.pop("tau", TAU), Settings(method=method.name, **chosen)
    for name, value in (("steps", step.steps), ("batch_size", step.batch_size), ("log_every", config.log_every),
                        ("checkpoint_every", config.checkpoint_every)):  # fmt: skip
        if value < 1:
            raise ValueError(f"{name} is {value}; give at least 1, such as --config.{name}=100")
    for name, value in chosen.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value}; give a number of at least 0 with --config.{name}=VALUE")
    return RunSettings(step, step.steps, check_tau(tau))


def check_tau(tau: float) -> float:
    """Returns tau; ValueError outside [0, 1]."""
    if not 0 <= tau <= 1:
        raise ValueError(f"tau is {tau}; give a number from 0 (masks as they are) to 1, such as {TAU}")
    return tau


def _domain_defaults(defaults: dict, method: str) -> dict:
    own = {key: value for key, value in defaults.items() if key != "methods"}
    own |= AUTHORS.get(method, {}) | defaults.get("methods", {}).get(method, {})
    unknown = sorted(own.keys() - {*_HYPER, "tau"})
    if unknown:
        known = ", ".join((*_HYPER, "tau"))
        raise ValueError(f"the settings in domain.json have unknown names {unknown}; known: {known}")
    return own
