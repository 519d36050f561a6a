"""Domains: a generator with the networks that go with it, read from a folder.

`domain.json` in the folder names the files and the domain's own defaults:

    {"name": "toons", "generator": "generator.safetensors", "clip": "clip.safetensors",
     "identity": "identity.safetensors" or null, "segmenters": {"mixture": "mixture.safetensors"},
     "default_segmenter": "mixture" or null, "classifier": "classifier.safetensors" (optional, evaluation only),
     "tokenizer": "tokenizer.json", "context": 32,
     "subject": "face" (what it draws, as prompts call it; "face" if not given),
     "language": "toons", "truth": "toons" (optional: what this program knows of the domain's captions, and its judge),
     "loss_resolution": 256 (optional: where the config says none, losses see the image at this resolution),
     "encoder": "encoder.safetensors" (optional: what the inversion of photographs starts from),
     "alignment": "ffhq" (optional: how photographs are aligned; if not given, they must come aligned),
     "edited_resolution": 128 (optional: px of the last layers that CORAL edits, where it is not the paper's 256),
     "direction_faces": 24 (optional: on how many faces global_directions looks at each style channel),
     "content_rows": [64, 448] (optional: the picture's rows of what the generator draws, where the rest are bars),
     "settings": {"tau": 0.85, "lambda_area": 1e-4, "methods": {"segment_global": {"steps": 300, "prompts": {"old": {...}}}}}
     (a method's own go before the domain's, and a prompt's, which are `config.OF_PROMPT` and tau, before the method's),
     "sources": {"generator.safetensors": {"path": "where it came from", "sha256": "...",
         "source": "the checkpoint that was converted", "source_sha256": "..."}} (optional, sha256 checked)}
"""

import hashlib
import importlib
import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import jax
from flax import nnx

from coral_jax import weights
from coral_jax.config import OF_PROMPT
from coral_jax.models.clip import CLIP
from coral_jax.models.generator import Generator
from coral_jax.models.identity import Identity
from coral_jax.models.segmenter import MixtureSegmenter, PixelClassifier
from coral_jax.runtime.errors import nearest
from coral_jax.runtime.files import check_fields, expand, read_json, user_cache
from coral_jax.runtime.numerics import pinned
from coral_jax.step import Frozen
from coral_jax.tokenizer import Tokenizer

EMBEDDED = {"toons": Path(__file__).parent / "toons" / "weights"}  # domains that come with the package
# What `language` and `truth` of a domain.json may name; nothing else is imported for a domain.
LANGUAGES = {"toons": "coral_jax.toons.captions", "faces": "coral_jax.faces.captions"}
TRUTHS = {"toons": "coral_jax.toons.truth", "faces": "coral_jax.faces.truth"}
ALIGNMENTS = ("ffhq",)  # `coral_jax.photos.align` knows
WEIGHTS_VARIABLE = "CORAL_JAX_WEIGHTS"
_REQUIRED = {"name": str, "generator": str, "clip": str, "identity": str | None, "segmenters": dict,
             "default_segmenter": str | None, "tokenizer": str, "context": int}  # fmt: skip
_OPTIONAL = {"classifier": str | None, "settings": dict, "sources": dict, "content_rows": object, "subject": str,
             "encoder": str | None, "alignment": object, "direction_faces": int | None, "loss_resolution": int | None,
             "edited_resolution": int | None, "language": object, "truth": object}  # fmt: skip


@dataclass(frozen=True)
class Domain:
    """A generator and its networks; `settings` are its defaults.

    `fingerprint` says which weights these are, `generator_fingerprint` which faces it draws.
    """

    name: str
    folder: Path
    generator: Generator
    clip: CLIP
    identity: Identity | None
    segmenters: dict[str, MixtureSegmenter | PixelClassifier]
    default_segmenter: str | None
    tokenizer: Tokenizer
    settings: dict
    fingerprint: str
    generator_fingerprint: str
    classifier_file: str | None
    subject: str = "face"
    direction_faces: int | None = None
    loss_resolution: int | None = None
    language_name: str | None = None
    truth_name: str | None = None
    encoder_file: str | None = None
    alignment: str | None = None

    @property
    def language(self) -> ModuleType | None:
        """The module that knows the captions of this domain's CLIP: `wordings`, `parse`, `WORDS`, which are all that it saw.

        None for a CLIP of plain English.
        """
        return importlib.import_module(LANGUAGES[self.language_name]) if self.language_name else None

    def settings_of(self, prompt: str) -> dict:
        """`settings`, where the methods' own hold what they have for this prompt, or for one that says the same.

        ValueError for an entry `prompts` that is not as the head of this file says.
        """
        of_methods = self.settings.get("methods")
        if not isinstance(of_methods, dict):
            return self.settings  # where it is wrong, `config.resolve` says so
        return self.settings | {"methods": {name: self._with_prompts(own, prompt) for name, own in of_methods.items()}}

    def _with_prompts(self, of_method: object, prompt: str) -> object:
        if not isinstance(of_method, dict) or "prompts" not in of_method:
            return of_method
        own = dict(of_method)
        of_prompts = own.pop("prompts")
        if not isinstance(of_prompts, dict) or not all(isinstance(fields, dict) for fields in of_prompts.values()):
            raise ValueError(f"the settings in domain.json: prompts holds {of_prompts!r}; give each prompt an object")
        allowed = (*OF_PROMPT, "tau")
        if unknown := sorted({name for fields in of_prompts.values() for name in fields}.difference(allowed)):
            raise ValueError(f"the settings in domain.json: a prompt cannot have its own {unknown}, but {', '.join(allowed)}")
        return own | {self._plain(text): fields for text, fields in of_prompts.items()}.get(self._plain(prompt), {})

    def _plain(self, prompt: str) -> str:
        """One text for all prompts that say the same, as far as the language knows."""
        prompt = " ".join(prompt.lower().split())
        return self.language.wordings(prompt)[0][0] if self.language else prompt

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of a prompt that this domain's CLIP never saw, with the nearest that it did; none for plain English."""
        if self.language is None:
            return []
        words = re.findall(r"\w+", prompt.lower()) or [prompt]
        unknown = [word for word in dict.fromkeys(words) if word not in self.language.WORDS]
        return [f"{word!r}{nearest(word, sorted(self.language.WORDS))}" for word in unknown]

    @property
    def truth(self) -> ModuleType | None:
        """The module that measures edits of this domain: `held_out`, `judges`, `judge`, `measure`; None: nothing does."""
        return importlib.import_module(TRUTHS[self.truth_name]) if self.truth_name else None

    def frozen(self, prompt: str, segmenter: str | None = None) -> Frozen:
        """What a training step reads: this domain's networks, one segmenter, the prompt's CLIP features.

        ValueError for an empty or too long prompt and for an unknown segmenter; None is the default one.
        """
        text = _encode_text(self.clip, self.tokenizer([prompt]))
        return Frozen(self.generator, self.clip, self.identity, self.segmenter(segmenter), text)

    def segmenter(self, name: str | None = None) -> MixtureSegmenter | PixelClassifier | None:
        """The segmenter of that name (None: the default one, None where the domain has none)."""
        name = name or self.default_segmenter
        if name is not None and name not in self.segmenters:
            known = ", ".join(self.segmenters) or "none"
            raise ValueError(f"domain {self.name} has no segmenter {name!r}; it has: {known}")
        return self.segmenters.get(name)

    def classifier(self) -> nnx.Module:
        """The attribute classifier that evaluates edits, read now; ValueError where the domain has none."""
        if self.classifier_file is None:
            raise ValueError(f"domain {self.name} has no classifier; measure on a domain that has one, such as toons")
        return weights.load(self.folder / self.classifier_file)

    def encoder(self) -> nnx.Module | None:
        """The encoder of photographs (`models.encoder`), read now; None where the domain has none.

        ValueError for one whose codes are not this generator's.
        """
        if self.encoder_file is None:
            return None
        encoder, wanted = weights.load(self.folder / self.encoder_file), (self.generator.n_latent, self.generator.w_dim)
        if (encoder.config.n_latent, encoder.config.w_dim) != wanted:
            raise ValueError(
                f"{self.folder / self.encoder_file} gives {encoder.config.n_latent} codes of {encoder.config.w_dim}, and the "
                f"generator of {self.name} reads {wanted[0]} of {wanted[1]}; give the encoder that was trained for it"
            )
        return encoder


def note_unknown_words(domain: Domain, prompts: Iterable[str]) -> None:
    """Say on stderr which words of the prompts the domain's CLIP never saw: what it makes of them means nothing."""
    for prompt in prompts:
        for word in domain.unknown_words(prompt):
            print(f"note: in the prompt {prompt!r}, the CLIP of {domain.name} never saw {word}", file=sys.stderr)


@jax.jit
def _encode_text(clip: CLIP, ids: jax.Array) -> jax.Array:
    return clip.encode_text(ids)[0]


def weights_folder(weights_dir: str | os.PathLike | None = None) -> Path:
    """Where domains other than the embedded ones live: the argument, else CORAL_JAX_WEIGHTS, else the user's cache."""
    if weights_dir or os.environ.get(WEIGHTS_VARIABLE):
        return expand(weights_dir or os.environ[WEIGHTS_VARIABLE])
    return user_cache() / "weights"


def known_domains(weights_dir: str | os.PathLike | None = None) -> dict[str, Path]:
    """Folder of every domain that can be loaded, by name."""
    found = {path.parent.name: path.parent for path in sorted(weights_folder(weights_dir).glob("*/domain.json"))}
    return found | {name: path for name, path in EMBEDDED.items() if (path / "domain.json").exists()}


@pinned()
def load_domain(name: str, weights_dir: str | os.PathLike | None = None) -> Domain:
    """Read a domain by name.

    ValueError for an unknown one (lists the known), and for a folder that is not complete or not as it was made.
    """
    known = known_domains(weights_dir)
    if name not in known:
        raise ValueError(
            f"unknown domain {name!r}; known: {', '.join(known) or 'none'}; others are made by "
            f"`python -m coral_jax.download` or `python -m converters.domain` and looked for in {weights_folder(weights_dir)} "
            f"(--config.weights_dir=DIR or {WEIGHTS_VARIABLE} gives another folder)"
        )
    folder = known[name]
    description = _read_description(folder)
    prints = {file: weights.fingerprint(folder / file) for file in frozen_files(description)}
    _check_sources(folder, description.get("sources", {}), prints)
    identity = description["identity"]
    generator = weights.load(folder / description["generator"])
    if "content_rows" in description:
        generator.content_rows = _content_rows(description["content_rows"], generator, folder)
        prints["content_rows"] = str(generator.content_rows)
    if description.get("edited_resolution") is not None:  # an edit has a mask for each edited layer
        generator.edited_resolution = description["edited_resolution"]
        prints["edited_resolution"] = f"edited through {generator.edited_resolution} px"
    return Domain(
        name=name,
        folder=folder,
        generator=generator,
        clip=weights.load(folder / description["clip"]),
        identity=None if identity is None else weights.load(folder / identity),
        segmenters={key: weights.load(folder / file) for key, file in description["segmenters"].items()},
        default_segmenter=description["default_segmenter"],
        tokenizer=Tokenizer(folder / description["tokenizer"], description["context"]),
        settings=description.get("settings", {}),
        fingerprint=_fingerprint(prints),
        generator_fingerprint=prints[description["generator"]],
        classifier_file=description.get("classifier"),
        subject=description.get("subject", "face"),
        direction_faces=description.get("direction_faces"),
        loss_resolution=description.get("loss_resolution"),
        language_name=description.get("language"),
        truth_name=description.get("truth"),
        encoder_file=description.get("encoder"),
        alignment=description.get("alignment"),
    )


def _read_description(folder: Path) -> dict:
    """domain.json, checked: its fields and that every file it names is there."""
    path = folder / "domain.json"
    description = read_json(path, "make the domain again")
    missing, unknown = _REQUIRED.keys() - description.keys(), description.keys() - _REQUIRED.keys() - _OPTIONAL.keys()
    if missing or unknown:
        raise ValueError(
            f"{path}: missing fields {sorted(missing)}, unknown fields {sorted(unknown)}; make the domain again"
        )
    given = {name: kind for name, kind in (_REQUIRED | _OPTIONAL).items() if name in description}
    check_fields(description, given, f"{path} is not a domain's description", "make the domain again")
    for field, known in (("language", LANGUAGES), ("truth", TRUTHS), ("alignment", ALIGNMENTS)):
        if description.get(field) not in (None, *known):
            raise ValueError(f"{path}: {field} is {description[field]!r}; give one of {', '.join(known)}, or leave it out")
    wrong = {name: file for name, file in description["segmenters"].items() if not isinstance(file, str)}
    wrong |= {name: origin for name, origin in description.get("sources", {}).items()
              if not isinstance(origin, dict) or not isinstance(origin.get("sha256"), str)}  # fmt: skip
    if wrong:
        raise ValueError(f"{path}: segmenters and sources cannot hold {wrong}; make the domain again")
    files = [*frozen_files(description), *filter(None, [description.get("classifier"), description.get("encoder")])]
    absent = [file for file in files if not (folder / file).is_file()]
    if absent:
        raise ValueError(f"{folder} lacks {', '.join(absent)}, which its domain.json names; make the domain again")
    return description


def frozen_files(description: dict) -> list[str]:
    """Names of the files that an edit's training reads."""
    files = [description["generator"], description["clip"], description["identity"], description["tokenizer"]]
    return [file for file in files if file is not None] + list(description["segmenters"].values())


def _content_rows(rows: object, generator: Generator, folder: Path) -> tuple[int, int]:
    """`content_rows` of domain.json; ValueError for what is not the middle rows of the generator's images.

    The middle: masks, which are square, are laid over pictures without being told of bars.
    """
    size = generator.size
    whole = isinstance(rows, list) and len(rows) == 2 and all(type(row) is int for row in rows)
    if not whole or not 0 <= rows[0] < rows[1] or sum(rows) != size:
        raise ValueError(
            f"{folder / 'domain.json'}: content_rows is {json.dumps(rows)}; give [first, end] with as many rows of the "
            f"generator's {size} left out above as below, such as [{size // 8}, {size - size // 8}], or leave it out"
        )
    return tuple(rows)


def _check_sources(folder: Path, sources: dict, prints: dict[str, str]) -> None:
    """ValueError where a file has another SHA-256 than domain.json records for it."""
    changed = [file for file in sources.keys() & prints.keys() if sources[file]["sha256"] != prints[file]]
    if changed:
        raise ValueError(
            f"{folder}: {', '.join(sorted(changed))} changed since the domain was made (the SHA-256 is not the one in "
            "domain.json); make the domain again with `python -m converters.domain`"
        )


def _fingerprint(prints: dict[str, str]) -> str:
    """SHA-256 over the sorted fingerprints of what an edit is trained on: neither defaults nor evaluation change one."""
    return hashlib.sha256("\n".join(sorted(prints.values())).encode()).hexdigest()
