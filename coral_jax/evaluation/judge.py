"""Measuring edits: what is measured of each cell (a method on a prompt).

Faces are resampled for the intervals; `trainings` puts together what several trainings of a cell give.
"""

import functools
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from coral_jax import metrics, weights
from coral_jax.artifact import BATCH, Edit
from coral_jax.domains import Domain
from coral_jax.evaluation.features import Embedder
from coral_jax.evaluation.pictures import pictures
from coral_jax.evaluation.plan import Cell
from coral_jax.figures import face_image, layer_tile, overlay, to_pixels
from coral_jax.latents import w_plus_of_seeds
from coral_jax.losses import cosine
from coral_jax.metrics import Resampled, area_weighted_layer
from coral_jax.runtime.compiling import jit
from coral_jax.runtime.files import read_json, write_json
from coral_jax.training.logs import read_metrics
from coral_jax.training.workdir import finished

FORMAT = 3  # of evaluation.json: another number, and cells are measured again
FIRST_SEED = 1_000_000  # of the faces to measure on where no truth chooses them
SHOWN, SHOWN_SIZE, MASK_SIZE = 5, 128, 64  # faces on comparison sheets; pixels of their tiles, and of masks in the report
RESAMPLES = "resamples.safetensors"
QUALITY = 0.95  # the share of the final CLIP gain that is "desirable quality"


class Subjects(NamedTuple):
    """The faces that a prompt is measured on: codes [N, n_latent, w_dim], the prompt's CLIP features, the truth if known."""

    w_plus: np.ndarray
    text: jax.Array
    asked: object | None  # of the domain's truth: held-out faces that lack what the prompt asks for


class Judge:
    """Measures edits on the same faces of each prompt."""

    def __init__(
        self, domain: Domain, embedder: Embedder, num_images: int, reference: str | None, *, keep_resamples: bool = False
    ):
        """`reference`: pictures to compare edited faces with besides the unedited ones, as `references.pictures` reads them.

        `keep_resamples`: cells are to be put together, which needs what their metrics are on resampled faces.
        """
        if num_images < 2:
            raise ValueError(f"num_images is {num_images}; give at least 2, such as --num_images=200")
        self._domain, self._embedder, self._count, self._source = domain, embedder, num_images, reference
        self._keep_resamples = keep_resamples
        # Looked up at once, and embedded when the first cell needs it: a wrong name must not show after hours.
        self._pictures = None if reference is None else pictures(reference)
        self.subjects = functools.cache(self._subjects)
        self._unedited = {}  # features of the unedited faces, by prompt: the same for every method

    def key(self, cell: Cell) -> dict:
        """All that decides a cell's results."""
        return {
            "format": FORMAT,
            "settings": cell.settings,
            "domain_fingerprint": self._domain.fingerprint,
            "num_images": self._count,
            "features": self._embedder.fingerprint,
            "judged": self._judges is not None,
            "reference": self._source and f"{self._source}, {self._pictures.count} pictures",
        }

    def read(self, cell: Cell) -> dict | None:
        """evaluation.json of a cell that is finished and was measured as this judge would measure it; else None."""
        try:
            record = read_json(cell.folder / "evaluation.json", "it is measured again")
            same = (record["method"], record["prompt"]) == (cell.method, cell.prompt)  # folders' names drop signs
            same &= record["key"] == self.key(cell) | {"edit": _edit_print(cell.folder)}
            if self._keep_resamples:  # older evaluations have none
                same &= record["resamples"] == weights.fingerprint(cell.folder / RESAMPLES)
            return record if same else None
        except (OSError, ValueError, KeyError):
            return None

    def measure(self, cell: Cell, edit: Edit) -> dict:
        """Measure a trained edit; returns evaluation.json, which is written beside it.

        So are samples.safetensors, images of a few faces, and resamples.safetensors, what each metric is on resampled faces.
        """
        begun = time.monotonic()
        subjects = self.subjects(cell.prompt)
        faces, edited, shown = self._observe(edit, subjects, cell.prompt)
        areas = faces.pop("areas", np.ones((1, 0))).mean(axis=0)
        if areas.min(initial=1) == 1:  # masks of one everywhere are no masks, and have no outside
            areas = []
            faces.pop("outside_mask", None)
        found = metrics.estimates(faces) | self._distances(self._unedited[cell.prompt], edited)
        found |= training_time(read_metrics(cell.folder / "metrics.jsonl"))
        shares = edit.shares(subjects.w_plus, areas)
        if (layer := area_weighted_layer(shares)) is not None:
            found["mean_layer"] = Resampled(layer)
        weights.save_tensors(cell.folder / "samples.safetensors", _samples(shown, shares), {})
        drawn = {name: one.drawn for name, one in found.items() if one.drawn is not None}
        weights.save_tensors(cell.folder / RESAMPLES, drawn, {})
        record = {
            "key": self.key(cell) | {"edit": _edit_print(cell.folder)},
            "method": cell.method,
            "prompt": cell.prompt,
            "resamples": weights.fingerprint(cell.folder / RESAMPLES),
            "metrics": {name: metrics.estimate([one])._asdict() for name, one in found.items()},
            "layers": [share._asdict() for share in shares],
            "seconds": finished(cell.folder)["seconds_total"] + time.monotonic() - begun,
        }
        write_json(cell.folder / "evaluation.json", record)
        return record

    @functools.cached_property
    def _reference(self) -> np.ndarray | None:
        return None if self._pictures is None else self._embedder.features(self._pictures.images)

    @functools.cached_property
    def _judges(self) -> object | None:
        """The networks that know the truth; None, and a line that says what is missing, where they are not there."""
        try:
            return None if self._domain.truth is None else self._domain.truth.judges(self._domain)
        except ValueError as error:
            print(f"note: no success, leak and drift: the judges of {self._domain.name} are missing: {error}", file=sys.stderr)
            return None

    def _subjects(self, prompt: str) -> Subjects:
        domain = self._domain
        asked = None if self._judges is None else domain.truth.held_out(domain, prompt, self._count)
        if asked is not None:
            w_plus = asked.w_plus
        else:
            seeds = list(range(FIRST_SEED, FIRST_SEED + self._count))
            w_plus = w_plus_of_seeds(domain.generator, seeds, domain.settings.get("truncation", 1.0))
        return Subjects(w_plus, domain.frozen(prompt).text, asked)

    def _observe(self, edit: Edit, subjects: Subjects, prompt: str) -> tuple[dict, np.ndarray, dict]:
        """Numbers of each face, by name [N]; features of edited faces; the first few images and masks.

        Faces are drawn eight at a time, so that memory does not grow with their number.
        """
        numbers, unedited_features, edited_features, shown = [], [], [], []
        for start in range(0, self._count, BATCH):
            rows = np.minimum(np.arange(start, start + BATCH), self._count - 1)  # the last batch is filled up
            kept = min(BATCH, self._count - start)
            original, edited, masks = edit.apply(subjects.w_plus[rows])
            of_faces = self._numbers(subjects, rows, original, edited, tuple(masks))
            numbers.append({name: value[:kept] for name, value in of_faces.items()})
            edited_features.append(self._features(edited[:kept]))
            if prompt not in self._unedited:
                unedited_features.append(self._features(original[:kept]))
            if start < SHOWN:
                shown.append({"original": original[:kept], "edited": edited[:kept], "masks": [m[:kept] for m in masks]})
        if unedited_features:
            self._unedited[prompt] = np.concatenate(unedited_features)
        joined = {name: np.concatenate([part[name] for part in numbers]) for name in numbers[0]}
        first = jax.tree.map(lambda *parts: np.concatenate(parts)[:SHOWN], *shown)
        return joined, np.concatenate(edited_features), first

    def _features(self, images: np.ndarray) -> np.ndarray:
        return self._embedder.features(to_pixels(image) for image in images)

    def _numbers(
        self, subjects: Subjects, rows: np.ndarray, original: np.ndarray, edited: np.ndarray, masks: tuple[np.ndarray, ...]
    ) -> dict[str, np.ndarray]:
        clip, identity, asked = self._domain.clip, self._domain.identity, subjects.asked
        numbers = {
            "clip_gain": _clip_gain(clip, subjects.text, original, edited),
            "changed": metrics.share_changed(original, edited),
        }
        if identity is not None:
            numbers["identity"] = metrics.likeness(identity, original, edited)
        if masks:
            numbers["outside_mask"] = metrics.distance_outside(clip, original, edited, metrics.union_of(masks, original))
            numbers["areas"] = np.stack([mask.mean(axis=(1, 2)) for mask in masks], axis=1)
        if asked is not None:
            numbers["outside_truth"] = metrics.distance_outside(
                clip, original, edited, metrics.enlarged(asked.region[rows], original)
            )
            numbers |= self._domain.truth.judge(self._judges, asked.at(rows), original, edited)
        return {name: np.asarray(value) for name, value in numbers.items()}

    def _distances(self, unedited: np.ndarray, edited: np.ndarray) -> dict[str, Resampled]:
        frechet, kernel = self._embedder.frechet, self._embedder.kernel
        found = {
            frechet: metrics.frechet_resampled(edited, unedited, paired=True),
            kernel: metrics.kernel_resampled(edited, unedited, paired=True),
        }
        if self._reference is not None:
            found[f"{frechet}_reference"] = metrics.frechet_resampled(edited, self._reference, paired=False)
            found[f"{kernel}_reference"] = metrics.kernel_resampled(edited, self._reference, paired=False)
        return found


def smoothed(rows: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of training and D_CLIP of I* at each row of a metrics.jsonl; D_CLIP as a running mean over a twentieth of them.

    Of I*, not the CLIP loss, which for some methods is of another image, too.  Both are empty where it was not logged.
    """
    if not rows or not all("clip_distance" in row for row in rows):
        return np.zeros(0), np.zeros(0)
    steps = np.array([row["step"] for row in rows], float)
    seconds = np.cumsum(np.diff(steps, prepend=0.0) * np.array([row["seconds_per_step"] for row in rows]))
    distance = np.array([row["clip_distance"] for row in rows])
    half = len(rows) // 40
    return seconds, np.array([distance[max(0, i - half) : i + half + 1].mean() for i in range(len(rows))])


def training_time(rows: list[dict]) -> dict[str, Resampled]:
    """Seconds of training, and to "desirable quality" (Table 1), from a run's metrics.jsonl; compiling is not in them.

    Quality is reached where the smoothed D_CLIP of I* has first fallen by 95 % of what it falls from the first row to the
    mean of the last tenth.  Left out where it does not fall, or was not logged.
    """
    seconds, smooth = smoothed(rows)
    if not len(seconds):
        return {}
    distance = np.array([row["clip_distance"] for row in rows])
    gain = distance[0] - distance[-max(1, len(rows) // 10) :].mean()
    reached = np.flatnonzero(distance[0] - smooth >= QUALITY * gain)
    found = {"seconds": Resampled(float(seconds[-1]))}
    return found | {"seconds_to_quality": Resampled(float(seconds[reached[0]]))} if gain > 0 and len(reached) else found


@jit
def _clip_gain(clip: object, text: jax.Array, original: jax.Array, edited: jax.Array) -> jax.Array:
    text = text[None]  # to every face
    return cosine(clip.encode_image(edited), text) - cosine(clip.encode_image(original), text)


def _samples(shown: dict, shares: list) -> dict[str, np.ndarray]:
    """Tiles for sheets and the report: original, edited and where [F, t, t, 3]; layers [n, m, m, 3] of the first face."""
    tiles = {
        name: np.stack([np.asarray(face_image(face, SHOWN_SIZE)) for face in shown[name]]) for name in ("original", "edited")
    }
    masks = shown["masks"]
    if shares:
        where = [overlay(face, [mask[i] for mask in masks], shares) for i, face in enumerate(shown["original"])]
        tiles["where"] = np.stack([np.asarray(tile.resize((SHOWN_SIZE, SHOWN_SIZE))) for tile in where])
        face = shown["original"][0]
        last = shares[-1].layer
        layers = [layer_tile(face, mask[0], share, last, MASK_SIZE) for mask, share in zip(masks, shares, strict=True)]
        tiles["layers"] = np.stack([np.asarray(tile) for tile in layers])
    return tiles


def _edit_print(folder: Path) -> str:
    """Fingerprint of the edit's weights, as edit.json has it."""
    return read_json(folder / "edit" / "edit.json", "train the edit again")["weights_sha256"]
