"""Makes a domain of converted networks: the folder that `:domain=NAME` of every command finds.

    python -m converters.domain --name=ffhq --generator=weights/generator.safetensors --clip=weights/clip.safetensors \
        --identity=weights/identity.safetensors --segmenter_fit

The folder appears in the weights folder (--weights_dir, else CORAL_JAX_WEIGHTS, else the user's cache) when it is complete.
"""

import functools
import itertools
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from absl import flags
from flax import nnx

from converters.templates import TEMPLATES, Template
from coral_jax import commands, weights
from coral_jax.domains import EMBEDDED, weights_folder
from coral_jax.latents import w_plus_of_seeds
from coral_jax.models import load_clip, load_generator, load_identity
from coral_jax.models.encoder import FlatEncoder, PyramidEncoder
from coral_jax.models.generator import Generator
from coral_jax.models.segmenter import MixtureSegmenter, MixtureSegmenterConfig, fit_mixture, pixel_features
from coral_jax.runtime.errors import nearest
from coral_jax.runtime.files import write_json
from coral_jax.runtime.progress import Progress
from coral_jax.tokenizer import Tokenizer

# The mixture sees the last convolution at each of these resolutions (at smaller ones, nothing is where it is drawn).
SEGMENTED = (16, 256)
FIT_FACES, FIT_PIXELS = 64, 200  # faces drawn, and pixels taken of each; more of these where features are many
_COMPONENTS = 16
ENCODER = "encoder.safetensors"


def make_domain(
    name: str,
    generator: Path,
    clip: Path,
    identity: Path | None,
    *,
    template: str = "ffhq",
    subject: str | None = None,
    segmenter_fit: bool = False,
    encoder: Path | None = None,
    weights_dir: str | None = None,
    origins: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Write a domain's folder, whole or not at all; the line says what was made.

    generator, clip, identity: files of this program; `clip` has its tokenizer.json beside it, or is a folder with both.
    template: of TEMPLATES. subject: what the generator draws, such as "car"; the template's, if not given.
    segmenter_fit: fit the mixture of 5 segments that segment_* methods need.
    encoder: a file of converters.encoder, where the inversion of photographs is to start.
    origins: by the names of the domain's files, where they came from, for domain.json; their paths, if not given.
    ValueError for a name that is taken or is none, and for files that do not belong together.
    """
    folder = _new_folder(name, weights_dir)
    if template not in TEMPLATES:
        raise ValueError(
            f"unknown template {template!r}{nearest(template, TEMPLATES)} (known: {', '.join(TEMPLATES)})"
        )
    chosen = TEMPLATES[template]
    subject = subject or chosen.subject
    clip = clip / "clip.safetensors" if clip.is_dir() else clip
    tokenizer = clip.with_name("tokenizer.json")
    network = _load(load_generator, generator, "stylegan2")
    network.content_rows = chosen.content_rows(network.size)
    context = _check_tokenizer(tokenizer, _load(load_clip, clip, "clip").config)
    _check_template(template, chosen, network, identity)
    files = {"generator.safetensors": generator, "clip.safetensors": clip, "tokenizer.json": tokenizer}
    if identity is not None:
        _load(load_identity, identity, "identity")
        files["identity.safetensors"] = identity
    conventions = {"subject": subject, "settings": chosen.settings}
    if network.content_rows is not None:
        conventions["content_rows"] = network.content_rows
    if chosen.alignment is not None:
        conventions["alignment"] = chosen.alignment
    if encoder is not None:
        _check_encoder(encoder, network)
        files[ENCODER], conventions["encoder"] = encoder, ENCODER
    with whole_folder(folder) as partial:
        for file, source in files.items():
            shutil.copyfile(source, partial / file)
        sources = {file: {"path": origins.get(file, str(path))} | original(path) for file, path in files.items()}
        segmenters = {}
        if segmenter_fit:
            weights.save(partial / "mixture.safetensors", fit_segmenter(network, chosen.settings["truncation"]), np.float16)
            segmenters["mixture"] = "mixture.safetensors"
            sources["mixture.safetensors"] = {"path": f"fitted to {FIT_FACES} faces of the generator"}
        _describe(partial, name, sources, segmenters, context, conventions)
    parts = [f"{network.size} px, {network.n_latent} codes", "identity" if identity else "no identity"]
    parts += ["mixture of 5 segments" if segmenters else "no segmenter (segment_* methods need --segmenter_fit)"]
    return f"{folder}: domain {name} ({', '.join(parts)}), settings of the template {template}; use it with :domain={name}"


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder beside `folder`, which takes its name at the end, and is gone after an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield partial
        partial.chmod(0o755)  # temporary folders are the user's alone
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _describe(
    folder: Path, name: str, sources: dict[str, dict], segmenters: dict[str, str], context: int, conventions: dict
) -> None:
    """Write domain.json beside the files that `sources` names; `conventions` are further fields of it."""
    description = {
        "name": name,
        "generator": "generator.safetensors",
        "clip": "clip.safetensors",
        "identity": "identity.safetensors" if "identity.safetensors" in sources else None,
        "segmenters": segmenters,
        "default_segmenter": next(iter(segmenters), None),
        "tokenizer": "tokenizer.json",
        "context": context,
        **conventions,
        "sources": {file: said | {"sha256": weights.fingerprint(folder / file)} for file, said in sources.items()},
    }
    write_json(folder / "domain.json", description)


def original(path: Path) -> dict[str, str]:
    """Which checkpoint a file was converted from: its `source` and `source_sha256`, where the file says so."""
    if path.suffix == ".json":  # the tokenizer
        return {}
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    return {name: metadata[name] for name in ("source", "source_sha256") if name in metadata}


def fit_segmenter(generator: Generator, truncation: float, faces: int = FIT_FACES) -> MixtureSegmenter:
    """The 5-segment mixture of a generator's features, fitted to pixels of `faces` drawn ones.

    Faces are drawn one by one, so that memory does not grow with their number. ValueError for a generator without
    features of 16 px or more.
    """
    last = {layer.resolution: layer for layer in generator.layers}  # later layers of a resolution take the place of earlier
    layers = tuple(
        (layer.index, layer.channels) for size, layer in last.items() if SEGMENTED[0] <= size <= SEGMENTED[1]
    )
    if not layers:
        raise ValueError(f"--segmenter_fit needs a generator of at least {SEGMENTED[0]} px; leave it out")
    resolution = generator.layers[layers[-1][0] - 1].resolution
    width = sum(channels for _, channels in layers)
    per_face = max(FIT_PIXELS, -(-10 * width // faces))
    codes = w_plus_of_seeds(generator, list(range(faces)), truncation)
    drawn = np.arange(resolution**2)
    if generator.content_rows is not None:  # bars are no segment
        first, end = (row * resolution * resolution // generator.size for row in generator.content_rows)
        drawn = drawn[first:end]
    rng, progress, pixels = np.random.default_rng(0), Progress("drawing faces to segment", 0, faces), []
    for index in range(faces):
        places = rng.choice(drawn, min(per_face, len(drawn)), replace=False)
        pixels.append(np.asarray(_pixels(generator, codes[index : index + 1], jnp.asarray(places), layers, resolution)))
        progress.show(index + 1, {})
    config = MixtureSegmenterConfig(layers, resolution, components=min(_COMPONENTS, width))
    return fit_mixture(config, np.concatenate(pixels))


@functools.partial(jax.jit, static_argnames=("layers", "resolution"))
def _pixels(
    generator: Generator, w_plus: jax.Array, places: jax.Array, layers: tuple[tuple[int, int], ...], resolution: int
) -> jax.Array:
    """Features of one face, w_plus [1, n_latent, w_dim], at `places` of a map: [places, sum of channels]."""
    found = []
    for layer, x, _ in itertools.islice(generator.walk(w_plus), layers[-1][0]):
        if (layer.index, layer.channels) in layers:  # one layer at a time: all of them at full size are large
            rows = pixel_features({layer.index: x}, ((layer.index, layer.channels),), resolution)
            found.append(rows.reshape(-1, layer.channels)[places])
    return jnp.concatenate(found, axis=-1)


def _new_folder(name: str, weights_dir: str | None) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"{name!r} cannot name a domain; use letters, digits, _ and -, such as --name=ffhq")
    if name in EMBEDDED:
        raise ValueError(f"the domain {name} comes with the program; give another --name")
    folder = weights_folder(weights_dir) / name
    if folder.exists():
        raise ValueError(f"{folder} is there already; give another --name or remove it")
    return folder


def _load(load: Callable[[Path], nnx.Module], path: Path, converter: str) -> nnx.Module:
    """A network from a file of this program; for any other file, ValueError that says how to convert it."""
    if not path.is_file():
        raise ValueError(f"there is no {path}; make it with python -m converters.{converter} --checkpoint=FILE --out={path}")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            ours = "architecture" in (file.metadata() or {})
    except safetensors.SafetensorError:
        ours = False
    if not ours:
        out = path.with_name(f"{path.stem}_converted.safetensors")
        raise ValueError(
            f"{path} is not a file of this program; convert it first, "
            f"python -m converters.{converter} --checkpoint={path} --out={out}"
        )
    return load(path)


def _check_encoder(path: Path, generator: Generator) -> None:
    """ValueError where a file holds no encoder, or one of another generator's codes."""
    encoder = _load(weights.load, path, "encoder")
    if not isinstance(encoder, FlatEncoder | PyramidEncoder):
        raise ValueError(f"{path} holds a {type(encoder).__name__} and no encoder; give a file of python -m converters.encoder")
    codes, wanted = (encoder.config.n_latent, encoder.config.w_dim), (generator.n_latent, generator.w_dim)
    if codes != wanted:
        theirs, ours = (f"{count} codes of {width}" for count, width in (codes, wanted))
        raise ValueError(f"{path} gives {theirs}, and the generator reads {ours}; give the encoder that was trained for it")


def _check_tokenizer(path: Path, config: object) -> int:
    """The CLIP's context; ValueError where its tokenizer.json is not there or has another number of tokens."""
    if not path.is_file():
        raise ValueError(f"there is no {path}; python -m converters.clip writes it beside the CLIP, keep them together")
    size = Tokenizer(path, config.context).vocab_size
    if size != config.vocab_size:
        raise ValueError(f"{path} has {size} tokens, and the CLIP beside it {config.vocab_size}; convert the CLIP again")
    return config.context


def _check_template(name: str, template: Template, generator: Generator, identity: Path | None) -> None:
    size = generator.size
    if template.size not in (None, size):
        fitting = [other for other, t in TEMPLATES.items() if t.size in (None, size) and t.faces == template.faces]
        raise ValueError(
            f"the template {name} is for generators of {template.size} px, and this one draws {size} px; "
            f"give --template={' or '.join(fitting)}"
        )
    if identity is not None and not template.faces:
        raise ValueError(f"the template {name} draws no faces; give --identity=none")


def _define_flags() -> Callable[[], None]:
    # Defined when this is run, not when it is imported: other commands have flags of the same names.
    texts = {
        "name": "What the domain is called.",
        "generator": "A generator's file, of converters.stylegan2.",
        "clip": "A CLIP's file, of converters.clip, or the folder where it is.",
        "identity": "An identity network's file, of converters.identity, or none.",
        "encoder": "An encoder's file, of converters.encoder, for photographs (default: none).",
        "weights_dir": "Where domains are; CORAL_JAX_WEIGHTS, else the user's cache, if not given.",
    }
    given = {name: flags.DEFINE_string(name, None, text) for name, text in texts.items()}
    template = flags.DEFINE_string("template", "ffhq", f"What the settings start from: {', '.join(TEMPLATES)}.")
    subject = flags.DEFINE_string("subject", None, "What the generator draws, as prompts call it (default: the template's).")
    fit = flags.DEFINE_boolean("segmenter_fit", False, "Fit the 5-segment mixture that segment_* methods need.")

    def main() -> None:
        for name in ("name", "generator", "clip", "identity"):
            if not given[name].value:
                raise ValueError(
                    f"no --{name}; type python -m converters.domain --name=ffhq --generator=FILE --clip=FILE "
                    "--identity=FILE (or none)"
                )
        identity = None if given["identity"].value == "none" else Path(given["identity"].value)
        print(
            make_domain(
                given["name"].value, Path(given["generator"].value), Path(given["clip"].value), identity,
                template=template.value, subject=subject.value, segmenter_fit=fit.value,
                encoder=None if given["encoder"].value is None else Path(given["encoder"].value),
                weights_dir=given["weights_dir"].value,
            )
        )  # fmt: skip

    return main


if __name__ == "__main__":
    commands.run(_define_flags())
