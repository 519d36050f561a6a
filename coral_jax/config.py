"""The configuration of a run: every field with its default, and how a run's settings follow from it."""

import dataclasses
import os
import re
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

import jax
import ml_collections
from ml_collections.config_dict import placeholder

from coral_jax.latents import parse_seeds
from coral_jax.methods import AUTHORS, get_method
from coral_jax.runtime.files import expand, file_name, read_text
from coral_jax.runtime.numerics import check_seed

TAU = 0.85  # the paper's (section 4.1), where neither the config nor the domain says
ALPHA_LIMIT = 1.5  # the paper's range (section 4.1)


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters of a training step, each a field of the config.  The lambdas are ours (the paper publishes none).

    A pytree of its numbers: one compiled step serves every rate and every lambda, and only another method or (micro)batch
    size needs another.  In the config, None stands for the domain's own value for the method.
    """

    method: str = "attention_mapper"  # a name of coral_jax.methods: CORAL's four, baselines, ablations
    batch_size: int = 3  # faces per step
    microbatch_size: int = 0  # of these, at most how many a device differentiates at once, to save memory; 0: all
    truncation: float = 0.7  # psi of the sampled w: 1 draws every face, 0 the mean face
    learning_rate: float = 0.05  # of the latent editor
    region_learning_rate: float = 0.05  # of the region selector
    # Weights of the loss terms, equations 6 and 7; that of the CLIP term is 1.
    lambda_l2: float = 8.7e-5  # size of the latent edit
    lambda_id: float = 0.1  # keep the person
    lambda_area: float = 8e-5  # keep the edited area small
    lambda_tv: float = 1e-5  # keep masks smooth (attention only)
    area_power: float = 1.0  # p of n_l = size^-p in equation 4: 1 is the paper's; at 2 a whole mask costs the same anywhere
    area_exponent: float = 1.0  # of a layer's summand in equation 4: below 1, small regions cost more for their size
    area_ramp: float = 0.0  # share of the steps over which lambda_area grows from zero, so that masks wait for an edit
    strength: float = 1.0  # what alpha is multiplied by when the edit is applied
    steps: int = 20_000  # of the run: the paper's (section 4.1); rates may follow a schedule over them


_STATIC = ("method", "batch_size", "microbatch_size")  # a step is compiled for
_NUMBERS = [field for field in dataclasses.fields(Settings) if field.name != "method"]
_HYPER = tuple(field.name for field in _NUMBERS)
OF_PROMPT = tuple(name for name in _HYPER if name.startswith(("lambda_", "area_")))  # prompts learned together share the rest
jax.tree_util.register_dataclass(Settings, [name for name in _HYPER if name not in _STATIC], list(_STATIC))


class Resolved(NamedTuple):
    """What a config and a domain's defaults decide together: a step's hyper-parameters, and tau of the edit."""

    settings: Settings
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
    config.loss_resolution = placeholder(int)  # px that the losses see; None: what the domain says, else the whole image
    config.seed = 0  # of the trainables' start and of the faces drawn
    for field in _NUMBERS:
        config[field.name] = placeholder(field.type)  # `Settings` says what each is
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

    ValueError for none, for a file that is not there, and for two that would share a folder.
    """
    path = expand(text) if text.startswith("~/") else text
    is_file = os.path.isfile(path)  # False, too, for what is too long to be a name
    if not is_file and (text.endswith(".txt") or ("/" in text and os.path.isdir(path))):
        raise ValueError(f"there is no file {text}; write the prompts into it, one a line, or give them as \"happy;blue eyes\"")
    lines = read_text(path).splitlines() if is_file else text.split(";")
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ValueError('no prompts; give several as --config.prompts="happy;blue eyes", or a file with one a line')
    folders = {}
    for prompt in prompts:
        folders.setdefault(folder_name(prompt), []).append(prompt)
    check_apart(folders)
    return {name: prompt for name, (prompt,) in folders.items()}


def folder_name(prompt: str) -> str:
    """The name of a prompt's folder: "Blue eyes!" gives blue_eyes."""
    words = re.sub(r"\W+", "_", unicodedata.normalize("NFC", prompt).lower()).strip("_")
    return file_name(words or prompt)


def check_apart(folders: dict[str, list[str]]) -> None:
    """ValueError where folders, each with the prompts that it is for, would be shared: some file systems ignore case."""
    sharing = {}
    for folder, prompts in folders.items():
        sharing.setdefault(folder.casefold(), []).extend((prompt, folder) for prompt in prompts)
    for (prompt, folder), *others in sharing.values():
        if others:
            raise ValueError(f"{prompt!r} and {others[0][0]!r} would share the folder {folder}; leave one out")


def resolve(config: ml_collections.ConfigDict, defaults: dict) -> Resolved:
    """Settings of a run: the config's where it has one, else the domain's `defaults` for the method, else ours.

    ValueError for an unknown method and for values out of range.
    """
    method = get_method(config.method)
    if nameless := [term.name for term in method.terms if term.weight not in (None, *_HYPER)]:
        raise ValueError(f"{method.name} sums {nameless}, whose weights are no fields of config.Settings; add them there")
    chosen = _domain_defaults(defaults, method.name)
    chosen |= {key: config[key] for key in (*_HYPER, "tau") if config[key] is not None}
    if method.per_face:  # every step sees the same faces, the sheet's
        chosen["batch_size"] = len(parse_seeds(config.sheet_seeds))
    tau, settings = chosen.pop("tau", TAU), Settings(method=method.name, **chosen)
    for name, value in (("steps", settings.steps), ("batch_size", settings.batch_size), ("log_every", config.log_every),
                        ("checkpoint_every", config.checkpoint_every)):  # fmt: skip
        if value < 1:
            raise ValueError(f"{name} is {value}; give at least 1, such as --config.{name}=100")
    for name, value in chosen.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value}; give a number of at least 0 with --config.{name}=VALUE")
    if method.per_face and settings.microbatch_size:
        raise ValueError(f"{method.name} edits each face on its own and learns all at once; leave microbatch_size out")
    check_seed(config.seed, "--config.seed")
    return Resolved(settings, check_tau(tau))


def check_tau(tau: float) -> float:
    """Returns tau; ValueError outside [0, 1]."""
    if not 0 <= tau <= 1:
        raise ValueError(f"tau is {tau}; give a number from 0 (masks as they are) to 1, such as {TAU}")
    return tau


def check_alphas(texts: list[str]) -> list[float]:
    """["-1", "0.5"] -> [-1.0, 0.5]; ValueError for what is no number, and outside [-1.5, 1.5]."""
    alphas = []
    for text in texts:
        try:
            alpha = float(text)
        except ValueError:
            alpha = float("nan")
        if not -ALPHA_LIMIT <= alpha <= ALPHA_LIMIT:
            raise ValueError(f"alpha is {text!r}; give numbers from -1.5 to 1.5, such as --alpha=-1,0,1")
        alphas.append(alpha)
    return alphas


def _domain_defaults(defaults: dict, method: str) -> dict:
    own = {key: value for key, value in defaults.items() if key != "methods"}
    of_method = defaults.get("methods", {})
    of_method = of_method.get(method, {}) if isinstance(of_method, dict) else of_method
    if not isinstance(of_method, dict):
        raise ValueError(f"the settings in domain.json: methods holds {of_method!r}; give each method an object")
    own |= AUTHORS.get(method, {}) | of_method
    unknown = sorted(own.keys() - {*_HYPER, "tau"})
    if unknown:
        known = ", ".join((*_HYPER, "tau"))
        raise ValueError(f"the settings in domain.json have unknown names {unknown}; known: {known}")
    for name, value in own.items():
        _check_number(name, value, "the settings in domain.json")
    return own


def _check_number(name: str, value: object, source: str) -> None:
    """ValueError where a setting that was read from a file is no number of its kind."""
    whole = name in ("steps", "batch_size")
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise ValueError(f"{source}: {name} is {value!r}; give a {'whole ' if whole else ''}number")


def settings_of(fields: dict, source: str) -> Settings:
    """Settings from what a file holds of them; ValueError, which names `source`, for fields that do not fit."""
    known = {field.name for field in dataclasses.fields(Settings)}
    if not isinstance(fields, dict) or fields.keys() - known:
        raise ValueError(f"{source}: the settings are {fields!r}; known: {', '.join(sorted(known))}")
    for name, value in fields.items():
        if name != "method":
            _check_number(name, value, source)
    return Settings(**fields)
