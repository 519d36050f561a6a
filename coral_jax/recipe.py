"""A recipe: what draws a picture again, as a JSON file.

    {"format": 1, "domain": "toons", "domain_fingerprint": "...",
     "face": {"seed": 7, "truncation": 1.0} or
             {"photo": "me", "picture_sha256": "...", "codes_sha256": "..."},
     "edits": [{"edit": "toons:happy", "weights_sha256": "...", "alpha": 1.0, "tau": 0.7, "layers_off": [2, 3],
                "brush": "a PNG file in base64, or null"}]}

Edits and photos are named as `shelf` and the folder of photos have them: a recipe holds no paths.
"""

import base64
import binascii
import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from coral_jax import shelf
from coral_jax.artifact import Edit, load_edit
from coral_jax.canvas import LEARNED, Adjusted, brush_size
from coral_jax.config import check_tau
from coral_jax.domains import Domain, load_domain
from coral_jax.gallery import check_alphas
from coral_jax.runtime.files import check_fields, read_json, write_bytes
from coral_jax.runtime.numerics import check_seed
from coral_jax.sitter import Face, Pictured, Seed, sitter_of

FORMAT = 1
MOST_EDITS = 8
_REMEDY = "save the recipe again from the studio"
_FIELDS = {"format": int, "domain": str, "domain_fingerprint": str, "face": dict, "edits": list}
_STEP = {"edit": str, "weights_sha256": str, "alpha": int | float, "tau": int | float, "layers_off": list, "brush": str | None}


@dataclass(frozen=True)
class Step:
    """One edit of a recipe; `brush` is the content of a PNG file, None where nothing was painted."""

    edit: str
    weights_sha256: str
    alpha: float
    tau: float
    layers_off: tuple[int, ...] = ()
    brush: bytes | None = None


@dataclass(frozen=True)
class Recipe:
    """A face of a domain, and the edits on it in order."""

    domain: str
    domain_fingerprint: str
    face: Face
    steps: tuple[Step, ...]


def to_json(recipe: Recipe) -> dict:
    """A recipe as the object of its file."""
    steps = [
        {"edit": step.edit, "weights_sha256": step.weights_sha256, "alpha": step.alpha, "tau": step.tau,
         "layers_off": list(step.layers_off),
         "brush": None if step.brush is None else base64.b64encode(step.brush).decode()}
        for step in recipe.steps
    ]  # fmt: skip
    return {"format": FORMAT, "domain": recipe.domain, "domain_fingerprint": recipe.domain_fingerprint,
            "face": dataclasses.asdict(recipe.face), "edits": steps}  # fmt: skip


def read_recipe(path: Path) -> Recipe:
    """Read a recipe's file; ValueError says what does not fit."""
    if not path.is_file():
        raise ValueError(f"there is no recipe {path}; save one in the studio")
    return of_json(read_json(path, _REMEDY), str(path))


def of_json(content: dict, source: str) -> Recipe:
    """A recipe from the object of its file; ValueError, which names `source`, for what does not fit."""
    check_fields(content, _FIELDS, f"{source} is not a recipe", _REMEDY)
    if content["format"] != FORMAT:
        raise ValueError(f"{source} has the format {content['format']}, this version reads {FORMAT}")
    if len(content["edits"]) > MOST_EDITS:
        raise ValueError(f"{source} has {len(content['edits'])} edits; at most {MOST_EDITS} go on one face")
    steps = tuple(_step(step, source) for step in content["edits"])
    return Recipe(content["domain"], content["domain_fingerprint"], _face(content["face"], source), steps)


def read_brush(content: bytes, size: int) -> np.ndarray | None:
    """The brush in a PNG file, uint8 [size, size], None where it changes nothing; ValueError for other pictures and sizes."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.size != (size, size):
                raise ValueError(f"the brush has {image.size[0]} x {image.size[1]} px; give {size} x {size}")
            brush = np.asarray(image.convert("L"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the brush is no PNG picture ({error}); {_REMEDY}") from error
    return brush if (brush != LEARNED).any() else None


def redraw(path: Path, out: Path, runs: Path, photos: Path, weights_dir: str | None) -> Path:
    """Draw the picture of a recipe's file as a PNG of the same name in the folder `out`; returns its path.

    photos: the folder of photos' folders.  ValueError for edits, photos and weights that are not those of the recipe.
    """
    recipe = read_recipe(path)
    domain = load_domain(recipe.domain, weights_dir)
    check_domain(recipe, domain)
    edits = [adjusted(step, edit_of(step, domain, runs, weights_dir)) for step in recipe.steps]
    sitter = sitter_of(recipe.face, domain, photos)
    picture = out / f"{path.stem}.png"
    write_bytes(picture, sitter.picture(sitter.canvas(), edits))
    return picture


def check_domain(recipe: Recipe, domain: Domain) -> None:
    """ValueError where the domain has other weights than the recipe was made with."""
    if recipe.domain_fingerprint != domain.fingerprint:
        raise ValueError(
            f"the recipe was made with other weights of domain {domain.name!r} ({recipe.domain_fingerprint[:12]}, here "
            f"{domain.fingerprint[:12]}); give the folder that holds those with --weights_dir=DIR"
        )


def edit_of(step: Step, domain: Domain, runs: Path, weights_dir: str | None) -> Edit:
    """The edit of a recipe's step, read; ValueError for one that is not there, is another one, or of another domain."""
    known = shelf.find(step.edit, runs)
    if known.sha256 != step.weights_sha256:
        raise ValueError(f"the edit {step.edit!r} in {runs} is not the one of the recipe: it was trained again; {_REMEDY}")
    if known.domain != domain.name:
        raise ValueError(f"the edit {step.edit!r} is of domain {known.domain!r}, the recipe of {domain.name!r}; {_REMEDY}")
    return load_edit(known.path, weights_dir, domain)


def adjusted(step: Step, edit: Edit) -> Adjusted:
    """A recipe's step with its edit; ValueError for a brush that does not fit."""
    brush = None if step.brush is None else read_brush(step.brush, brush_size(edit.domain.generator))
    return Adjusted(edit, step.alpha, step.tau, frozenset(step.layers_off), brush)


def _face(face: dict, source: str) -> Face:
    if "photo" in face:
        fields = [field.name for field in dataclasses.fields(Pictured)]
        check_fields(face, dict.fromkeys(fields, str), f"{source}: the face is not a photo", _REMEDY)
        return Pictured(*(face[name] for name in fields))
    check_fields(face, {"seed": int, "truncation": int | float}, f"{source}: the face is not a seed", _REMEDY)
    if not 0 <= face["truncation"] <= 2:
        raise ValueError(f"{source}: truncation is {face['truncation']}; give a number from 0 to 2")
    return Seed(check_seed(face["seed"], f"{source}: seed"), float(face["truncation"]))


def _step(step: object, source: str) -> Step:
    if not isinstance(step, dict):
        raise ValueError(f"{source}: edits hold {step!r}; {_REMEDY}")
    check_fields(step, _STEP, f"{source}: an edit is not complete", _REMEDY)
    off = step["layers_off"]
    if not all(type(number) is int for number in off):
        raise ValueError(f"{source}: layers_off is {off!r}; give numbers of layers")
    try:
        brush = None if step["brush"] is None else base64.b64decode(step["brush"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"{source}: the brush is not base64 ({error}); {_REMEDY}") from error
    (alpha,) = check_alphas([str(step["alpha"])])
    return Step(step["edit"], step["weights_sha256"], alpha, check_tau(step["tau"]), tuple(sorted(set(off))), brush)
