"""How well photographs are inverted, rung by rung, on generated faces whose w is known.

    python -m benchmarks.inversion --domain=toons --faces=64 --out=inversion.jsonl
    python -m benchmarks.inversion --domain=toons --faces=64 --edit=runs/surprised --out=inversion.jsonl

Each rung sees the picture alone, in bytes.  Where a domain has no encoder, `encoder` is the mean face and `both` is
`optimised`; `tuned` goes on from `both`, and needs a --likeness above 0.5, at which the generator is tuned.

Without --edit: a row for each face, with identity (cosine), pixels (mean absolute error of 255), kept (share of the attributes
that the judge still sees) and seconds.  With it: success and leak of the edit on inverted faces and, as the rung `faces`, on
the faces themselves; also the means of these numbers, as inverted_identity and so on.  On `faces`, judges are networks that no
loss has used; on toons, the identity network is the loss's own.

With --edit, --sheet=FILE draws the first four of the faces that are edited, what each rung makes of them, and the edits.

A row is written as soon as it is measured, and rows that are there are not measured again.  Inversions are kept beside --out,
so that a stopped measurement goes on, and edits of the same faces share them.
"""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx
from PIL import Image

from coral_jax import commands, weights
from coral_jax.artifact import Edit, describe_edit, edit_folder, load_edit
from coral_jax.domains import Domain, load_domain
from coral_jax.figures import TILE, photo_sheet, png, to_pixels
from coral_jax.latents import w_plus_of_seeds
from coral_jax.metrics import likeness
from coral_jax.models.generator import Generator
from coral_jax.models.prior import Prior, prior_of
from coral_jax.photos import invert, tune
from coral_jax.photos.likeness import Networks, imagenet_of, networks_of
from coral_jax.photos.making import LIKENESS, Effort, effort_of
from coral_jax.photos.photo import with_differences
from coral_jax.runtime.compiling import jit
from coral_jax.runtime.files import write_bytes

SEED = 4_000_000  # of the first face
RUNGS = ("encoder", "optimised", "both", "tuned")
_SHOWN = 4  # faces of a sheet


class Inverted(NamedTuple):
    """Codes [n_latent, w_dim], what was added to the generator's weights, and the seconds that it took."""

    w_plus: np.ndarray
    tuned: dict[str, np.ndarray]
    seconds: float


class Tools(NamedTuple):
    """What a domain's faces are inverted with; imagenet: the start of its network's SHA-256, None where it is not asked."""

    domain: Domain
    encoder: nnx.Module | None
    networks: Networks
    prior: Prior
    imagenet: str | None


def tools_of(domain: Domain, weights_dir: str | None = None) -> Tools:
    """What coral_jax.photo would invert this domain's photographs with."""
    path = imagenet_of(domain, weights_dir)
    networks = networks_of(domain, path)
    digest = weights.fingerprint(path)[:12] if networks.imagenet is not None else None
    return Tools(domain, domain.encoder(), networks, prior_of(domain.generator), digest)


class Ladder(NamedTuple):
    """How faces are inverted: the rung, the setting of coral_jax.photo, how many at once, and where inversions are kept."""

    rung: str
    likeness: float
    batch: int
    kept: Path

    def invert(self, tools: Tools, images: np.ndarray) -> list[Inverted]:
        """Each of images [N, S, S, 3] in [-1, 1] inverted, or read where it is kept."""
        effort = effort_of(tools.domain.generator, self.likeness)
        about = [tools.domain.fingerprint, self.rung, effort if self.rung == "tuned" else effort.plan, tools.imagenet]
        digests = [hashlib.sha256(str(about).encode() + to_pixels(image).tobytes()).hexdigest() for image in images]
        paths = [self.kept / f"{digest[:20]}.safetensors" for digest in digests]
        missing = [row for row, path in enumerate(paths) if not path.exists()]
        for start in range(0, len(missing), self.batch):
            rows = missing[start : start + self.batch]
            for row, one in zip(rows, self._made(tools, images[rows], effort), strict=True):
                tensors = {"w_plus": one.w_plus} | {f"tuned.{name}": value for name, value in one.tuned.items()}
                weights.save_tensors(paths[row], tensors, {"seconds": str(one.seconds)})
        return [_read(path) for path in paths]

    def _made(self, tools: Tools, images: np.ndarray, effort: Effort) -> list[Inverted]:
        if self.rung == "tuned":
            return tuned(tools, images, self._replace(rung="both").invert(tools, images), effort.tuning)
        return inverted(tools, images, self.rung, effort.plan)


def _read(path: Path) -> Inverted:
    tensors, about = weights.load_tensors(path)
    w_plus = tensors.pop("w_plus")
    return Inverted(w_plus, {name.removeprefix("tuned."): value for name, value in tensors.items()}, float(about["seconds"]))


def inverted(tools: Tools, images: np.ndarray, rung: str, plan: invert.Plan) -> list[Inverted]:
    """Each of images [N, S, S, 3] in [-1, 1] inverted by one rung of the ladder below `tuned`."""
    begun, generator = time.perf_counter(), tools.domain.generator
    state = invert.start(generator, tools.prior, None if rung == "optimised" else tools.encoder, images)
    if rung != "encoder":
        state = invert.invert(generator, tools.prior, tools.networks, images, state, plan)
    w_plus = np.asarray(invert.codes(state, tools.prior))
    seconds = (time.perf_counter() - begun) / len(images)
    return [Inverted(codes, {}, seconds) for codes in w_plus]


def tuned(tools: Tools, images: np.ndarray, found: list[Inverted], tuning: tune.Tuning) -> list[Inverted]:
    """The generator tuned to each of images [N, S, S, 3] in [-1, 1] at the codes that were found; their seconds count, too."""
    generator = tools.domain.generator
    fresh, made = tune.start(generator), []
    for image, one in zip(images, found, strict=True):
        begun = time.perf_counter()
        differences = tune.tune(generator, tools.prior, tools.networks, image, one.w_plus, fresh, tuning)
        made.append(Inverted(one.w_plus, differences, one.seconds + time.perf_counter() - begun))
    return made


def seen(generator: Generator, w_plus: np.ndarray) -> np.ndarray:
    """Pictures [N, S, S, 3] of w_plus [N, n_latent, w_dim] as files have them: in bytes."""
    drawn = np.concatenate([np.asarray(_draw(generator, codes[None])) for codes in w_plus])
    return to_pixels(drawn).astype(np.float32) / np.float32(127.5) - 1


def compare(domain: Domain, images: np.ndarray, others: np.ndarray) -> dict[str, np.ndarray]:
    """identity, pixels and kept of each of images [N, S, S, 3] and what was made of it."""
    pixels = 127.5 * np.abs(np.clip(images, -1, 1) - np.clip(others, -1, 1)).mean((1, 2, 3))
    if domain.classifier_file is not None:
        classifier = domain.classifier()
        answers = [jax.device_get(_classify(classifier, batch)) for batch in (images, others)]
        same = [np.argmax(answers[0][question], -1) == np.argmax(answers[1][question], -1) for question in answers[0]]
        identity = np.asarray(likeness(domain.identity, images, others))
        return {"identity": identity, "pixels": pixels, "kept": np.mean(same, axis=0)}
    truth = domain.truth
    judging = truth.judges(domain)
    before, after = truth.look(judging, images), truth.look(judging, others)
    turned, certain = truth.drift(before.measures, after.measures, [])
    identity = np.sum(before.embedding * after.embedding, axis=-1)
    return {"identity": identity, "pixels": pixels, "kept": 1 - turned / np.maximum(certain, 1)}


def reconstruct(tools: Tools, ladder: Ladder, images: np.ndarray) -> list[dict[str, float]]:
    """identity, pixels, kept and seconds of the inversion of each of images [N, S, S, 3]."""
    found, domain = ladder.invert(tools, images), tools.domain
    others = [seen(with_differences(domain.generator, one.tuned), one.w_plus[None]) for one in found]
    values = compare(domain, images, np.concatenate(others)) | {"seconds": np.array([one.seconds for one in found])}
    return [{name: float(value[row]) for name, value in values.items()} for row in range(len(images))]


def editing(edit: Edit, tools: Tools, ladder: Ladder, compared: list[dict[str, float]] | None) -> Callable[[np.ndarray], tuple]:
    """The edit of faces w_plus, or of what a rung makes of their pictures: (original, edited, masks).

    How like the pictures the inversions are is added to `compared`, if given.
    """
    if ladder.rung == "faces":
        return edit.apply

    def of_inverted(w_plus: np.ndarray) -> tuple:
        images, parts = seen(edit.domain.generator, np.asarray(w_plus)), []
        if compared is not None:
            compared.extend(reconstruct(tools, ladder, images))
        for one in ladder.invert(tools, images):
            generator = with_differences(edit.domain.generator, one.tuned)
            parts.append(jax.device_get(edit.drawn_by(generator).draw(one.w_plus[None])))
        return jax.tree.map(lambda *x: np.concatenate(x), *parts)

    return of_inverted


def named(run: str) -> dict[str, str]:
    """Which edit a finished run holds, for its rows: prompt, method and the SHA-256 of its weights."""
    description = describe_edit(edit_folder(run))
    return {name: description[name] for name in ("prompt", "method", "weights_sha256")}


def measured(tools: Tools, edit: Edit, ladder: Ladder, faces: int) -> dict[str, float]:
    """Metrics of an edit of faces that a rung inverted; ValueError for a prompt that the domain cannot judge."""
    compared, domain = [], tools.domain
    found = domain.truth.measure(domain, edit.prompt, editing(edit, tools, ladder, compared), faces)
    if found is None:
        raise ValueError(f"nothing judges {edit.prompt!r} on {domain.name}; give an edit whose prompt names attributes of it")
    means = {f"inverted_{name}": float(np.mean([one[name] for one in compared])) for name in (compared or [{}])[0]}
    return {name: value for name, value in found.items() if isinstance(value, float)} | means


def sheet(tools: Tools, edit: Edit, ladders: list[Ladder], w_plus: np.ndarray) -> Image.Image:
    """Faces w_plus [N, n_latent, w_dim] and what each rung makes of their pictures, then the same edited: a row for each."""
    shown = {}
    for ladder in ladders:
        shown[ladder.rung], shown[f"{ladder.rung}, edited"], _ = editing(edit, tools, ladder, None)(w_plus)
    names = sorted(shown, key=lambda name: name.endswith("edited"))
    rows = [{name: to_pixels(np.asarray(shown[name][row])) for name in names} for row in range(len(w_plus))]
    return photo_sheet(edit.prompt, f"{edit.settings.method} on {tools.domain.name}", rows, TILE)


def main() -> None:
    """Measure what is not there yet, a row at a time."""
    if not _OUT.value:
        raise ValueError("no --out; type python -m benchmarks.inversion --domain=toons --out=inversion.jsonl")
    out = Path(_OUT.value)
    domain = load_domain(_DOMAIN.value, _WEIGHTS_DIR.value)
    tools = tools_of(domain, _WEIGHTS_DIR.value)
    if "tuned" in _RUNGS.value and not effort_of(domain.generator, _LIKENESS.value).tuning.steps:
        raise ValueError(f"--likeness={_LIKENESS.value:g} tunes nothing; give more than 0.5 for the rung tuned")
    there = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    common = {"domain": domain.name, "fingerprint": domain.fingerprint[:12], "imagenet": tools.imagenet}
    common["likeness"] = _LIKENESS.value
    ladders = [Ladder(rung, _LIKENESS.value, _BATCH.value, out.with_suffix("")) for rung in _RUNGS.value]
    if _EDIT.value:
        edit = load_edit(_EDIT.value, _WEIGHTS_DIR.value)
        common |= named(_EDIT.value) | {"faces": _FACES.value}
        for ladder in ladders:
            about = common | {"rung": ladder.rung}
            if not any(about.items() <= row.items() for row in there):
                _append(out, about | measured(tools, edit, ladder, _FACES.value))
        if _SHEET.value:
            asked = domain.truth.held_out(domain, edit.prompt, _FACES.value)
            write_bytes(Path(_SHEET.value), png(sheet(tools, edit, ladders, asked.w_plus[:_SHOWN])))
        return
    for ladder in ladders:
        if ladder.rung == "faces":
            continue
        about = common | {"rung": ladder.rung}
        done = {row.get("seed") for row in there if about.items() <= row.items()}
        seeds = [seed for seed in range(SEED, SEED + _FACES.value) if seed not in done]
        for start in range(0, len(seeds), _BATCH.value):
            some = seeds[start : start + _BATCH.value]
            images = seen(domain.generator, w_plus_of_seeds(domain.generator, some, domain.settings["truncation"]))
            for seed, row in zip(some, reconstruct(tools, ladder, images), strict=True):
                _append(out, about | {"seed": seed} | row)


def _append(out: Path, row: dict) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out, "a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


_draw = jit(lambda generator, w_plus: generator.synthesis(w_plus))
_classify = jit(lambda classifier, images: classifier(jnp.asarray(images)))

if __name__ == "__main__":
    _DOMAIN = flags.DEFINE_string("domain", "toons", "The domain.")
    _WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Folder of domains other than the embedded ones.")
    _FACES = flags.DEFINE_integer("faces", 64, "How many faces.")
    _RUNGS = flags.DEFINE_list("rungs", list(RUNGS[:-1]), f"Of {', '.join(RUNGS)}; with --edit also faces, not inverted.")
    _EDIT = flags.DEFINE_string("edit", None, "A finished run whose edit is measured on inverted faces.")
    _SHEET = flags.DEFINE_string("sheet", None, "With --edit, a PNG of some faces, their inversions and the edits of both.")
    _LIKENESS = flags.DEFINE_float("likeness", LIKENESS, "As of coral_jax.photo.")
    _BATCH = flags.DEFINE_integer("batch_size", 1, "How many pictures are inverted at once.")
    _OUT = flags.DEFINE_string("out", None, "A file of JSON lines, to which rows are added.")
    commands.run(main)
