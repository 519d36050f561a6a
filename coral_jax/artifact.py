"""The learned edit as files: weights.safetensors, and edit.json that says what it is and what it was made with."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from coral_jax import weights
from coral_jax.bundle import MOST_DESCRIPTION, is_bundle, unpacked
from coral_jax.config import Settings, check_tau, settings_of
from coral_jax.domains import Domain, load_domain
from coral_jax.editors import Undoing
from coral_jax.methods import Method, get_method, make_trainables
from coral_jax.metrics import LayerShare, layer_shares
from coral_jax.models.generator import Generator
from coral_jax.optimisers import Trainables
from coral_jax.runtime.files import check_fields, read_json, write_json
from coral_jax.runtime.numerics import key_of, pinned
from coral_jax.step import Frozen, find_deltas, jit_apply_edit

FORMAT = 1
_FIELDS = {"format": int, "prompt": str, "method": str, "domain": str, "domain_fingerprint": str, "segmenter": str | None,
           "tau": int | float, "seed": int, "settings": dict, "weights_sha256": str}  # fmt: skip
BATCH = 8  # faces drawn at once: a fixed size, so that a face does not depend on how many are asked for


@dataclass(frozen=True)
class Edit:
    """A learned edit with the domain it was made with.

    `undo`: a negative alpha takes the edit back from faces that have it, by the delta that made them so (`editors.Undoing`),
    and not by that of the face as it is.
    """

    prompt: str
    domain: Domain
    segmenter: str | None
    settings: Settings
    seed: int
    tau: float
    trainables: Trainables
    undo: bool = False

    @pinned()
    def draw(
        self, w_plus: jax.Array, alpha: float = 1.0, tau: float | None = None
    ) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
        """Original and edited images [B, size, size, 3] and one mask [B, h, w] per masked layer, of one batch of faces.

        w_plus is [B, n_latent, w_dim]; each B compiles its own program.
        """
        return self._draw(self.trainables_of(w_plus), w_plus, alpha, tau)

    def _draw(
        self, trainables: Trainables, w_plus: jax.Array, alpha: float, tau: float | None
    ) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
        # The prompt's features are not read when an edit is applied: CLIP and identity stay out of the program.
        frozen = Frozen(self.domain.generator, None, None, self.domain.segmenter(self.segmenter), None)
        tau = self.tau if tau is None else tau
        if self.undo and alpha < 0:
            trainables = Trainables(Undoing(trainables.editor), trainables.selector)
        return jit_apply_edit(self.method, frozen, trainables, w_plus, alpha * self.settings.strength, tau)

    def trainables_of(self, w_plus: jax.Array) -> Trainables:
        """The trained ones; found anew for the faces w_plus where the method edits each face on its own."""
        if not self.method.per_face:
            return self.trainables
        settings = dataclasses.replace(self.settings, batch_size=len(w_plus))
        return find_deltas(self._networks, settings, w_plus)

    @functools.cached_property
    def _networks(self) -> Frozen:
        return self.domain.frozen(self.prompt, self.segmenter)

    @property
    def about(self) -> str:
        """What learned it, for a sheet."""
        return f"{self.settings.method} on {self.domain.name}" + (", undo" if self.undo else "")

    @property
    def truncation(self) -> float:
        """At which the faces of seeds are drawn: as it was trained."""
        return self.settings.truncation

    def drawn_by(self, generator: Generator) -> "Edit":
        """The same edit of another generator, such as the domain's own tuned to a photograph."""
        return dataclasses.replace(self, domain=dataclasses.replace(self.domain, generator=generator))

    @property
    def method(self) -> Method:
        """The method that learned it."""
        return get_method(self.settings.method)

    @property
    def masked_layers(self) -> tuple[int, ...]:
        """Numbers of the layers that have a mask."""
        return () if self.trainables.selector is None else self.trainables.selector.layers

    def apply(
        self, w_plus: jax.Array, alpha: float = 1.0, tau: float | None = None
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """`draw` for any number of faces, on the host: one compiled program for batches of 8, the last one padded."""
        original, (edited,), masks = self.apply_each(w_plus, [alpha], tau)
        return original, edited, masks

    @pinned()
    def apply_each(
        self, w_plus: jax.Array, alphas: Sequence[float], tau: float | None = None
    ) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
        """`apply` at every alpha: the originals, the edited faces of each alpha, the masks."""

        def draw(batch: np.ndarray) -> list[tuple]:
            trainables = self.trainables_of(batch)
            return [self._draw(trainables, batch, alpha, tau) for alpha in alphas]

        return in_batches(w_plus, draw)

    @pinned()
    def shares(self, w_plus: jax.Array, areas: Sequence[float]) -> list[LayerShare]:
        """What each masked layer does to the faces w_plus [N, n_latent, w_dim] whose masks have these mean areas."""
        if not len(areas):
            return []
        layers = [self.domain.generator.layers[number - 1] for number in self.masked_layers]
        return layer_shares([layer.resolution for layer in layers], areas, self.delta_norms(w_plus), self.masked_layers)

    @pinned()
    def delta_norms(self, w_plus: jax.Array) -> np.ndarray:
        """Norm of delta in each masked layer, of the codes that it reads, mean over the faces w_plus [N, n_latent, w_dim]."""
        layers = [self.domain.generator.layers[number - 1] for number in self.masked_layers]
        of_codes = np.asarray(_delta_norms(self.trainables, w_plus))
        return np.array([np.hypot.reduce(of_codes[list(layer.rows)]) for layer in layers])


def in_batches(
    w_plus: np.ndarray, draw: Callable[[np.ndarray], list[tuple]]
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Originals, edited faces of each strength, and masks of any number of faces w_plus [N, n_latent, w_dim].

    draw: of a batch of BATCH faces, for each strength (original, edited, masks); the last batch is padded.
    """
    parts = []
    for start in range(0, len(w_plus), BATCH):
        batch = np.asarray(w_plus[start : start + BATCH])
        padding = np.repeat(batch[-1:], BATCH - len(batch), axis=0)
        drawn = [jax.device_get(one) for one in draw(np.concatenate([batch, padding]))]
        parts.append((drawn[0][0], [edited for _, edited, _ in drawn], drawn[0][2]))
    original, edited, masks = jax.tree.map(lambda *x: np.concatenate(x)[: len(w_plus)], *parts)
    return original, edited, list(masks)


@jax.jit
def _delta_norms(trainables: Trainables, w_plus: jax.Array) -> jax.Array:
    """Norm [n] of delta for each code, mean over the faces."""
    return jnp.linalg.norm(trainables.editor(w_plus), axis=-1).mean(axis=0)


def save_edit(folder: str | os.PathLike, edit: Edit) -> None:
    """Write edit/weights.safetensors and edit/edit.json, each atomically."""
    folder = Path(folder)
    tensors = {name: np.asarray(value[...]) for name, value in weights.named_variables(edit.trainables).items()}
    weights.save_tensors(folder / "weights.safetensors", tensors, {"prompt": edit.prompt})
    description = {
        "format": FORMAT,
        "prompt": edit.prompt,
        "method": edit.settings.method,
        "domain": edit.domain.name,
        "domain_fingerprint": edit.domain.fingerprint,
        "segmenter": edit.segmenter,
        "tau": edit.tau,
        "steps": edit.settings.steps,
        "seed": edit.seed,
        "settings": dataclasses.asdict(edit.settings),
        "weights_sha256": weights.fingerprint(folder / "weights.safetensors"),
    }
    write_json(folder / "edit.json", description)


def load_edit(path: str | os.PathLike, weights_dir: str | os.PathLike | None = None, domain: Domain | None = None) -> Edit:
    """Read an edit and its domain, from a run's folder, from its edit/ folder or from a published edit's zip file.

    domain: the edit's, where it was loaded before; it is not read again.  ValueError for a path without an edit, for files
    that do not belong together, and for a domain whose weights are not those the edit was made with.
    """
    if is_bundle(Path(path)):
        with unpacked(Path(path)) as folder:
            return _read_edit(folder, str(path), weights_dir, domain)
    folder = edit_folder(path)
    return _read_edit(folder, str(folder), weights_dir, domain)


@pinned()
def _read_edit(folder: Path, name: str, weights_dir: str | os.PathLike | None, domain: Domain | None) -> Edit:
    description = describe_edit(folder, name)
    settings = settings_of(description["settings"], f"{name}/edit.json")
    method = get_method(description["method"])
    if description["weights_sha256"] != weights.fingerprint(folder / "weights.safetensors"):
        raise ValueError(f"weights.safetensors in {name} is not the one that edit.json describes; copy both again")
    if domain is None or domain.name != description["domain"]:
        domain = load_domain(description["domain"], weights_dir)
    if domain.fingerprint != description["domain_fingerprint"]:
        raise ValueError(
            f"the edit in {name} was made with other weights of domain {domain.name!r} "
            f"({description['domain_fingerprint'][:12]}, here {domain.fingerprint[:12]}); give the folder that holds "
            "those with --weights_dir=DIR, or train the edit again"
        )
    segmenter = domain.segmenter(description["segmenter"])
    segments = None if segmenter is None else segmenter.config.segments
    faces = settings.batch_size
    trainables = nnx.eval_shape(lambda: make_trainables(method, domain.generator, segments, key_of(0), faces))
    tensors, _ = weights.load_tensors(folder / "weights.safetensors")
    weights.fill(trainables, tensors, f"{name}/weights.safetensors")
    return Edit(
        description["prompt"], domain, description["segmenter"], settings, description["seed"], description["tau"], trainables
    )


def describe_edit(folder: Path, name: str | None = None) -> dict:
    """The edit.json in a folder, checked; ValueError, which calls the folder `name`, for what is no edit's description."""
    source = f"{name or folder}/edit.json"
    path = folder / "edit.json"
    if path.stat().st_size > MOST_DESCRIPTION:
        raise ValueError(f"{source} is larger than {MOST_DESCRIPTION} bytes, which none is; train it again")
    description = read_json(path, "train it again")
    check_fields(description, _FIELDS, f"{source} is not an edit's description", "train it again")
    if description["format"] != FORMAT:
        raise ValueError(f"{source} has the format {description['format']}, this version reads {FORMAT}")
    check_tau(description["tau"])
    return description


def edit_folder(folder: str | os.PathLike) -> Path:
    """The folder that holds edit.json: the one given, or its edit/ (a run's); ValueError if neither does."""
    for candidate in (Path(folder), Path(folder) / "edit"):
        if (candidate / "edit.json").is_file():
            return candidate
    raise ValueError(f"no edit in {folder}; give the folder of a finished training run, such as runs/surprised")
