"""What the Edit tab shows: faces, edits on them, their layers; networks and edits are read once for all pages."""

import base64
from collections import OrderedDict
from pathlib import Path

import numpy as np
from PIL import Image

from coral_jax import shelf
from coral_jax.artifact import Edit
from coral_jax.canvas import Adjusted, Canvas, brush_size, lowered, previews
from coral_jax.domains import Domain, known_domains, load_domain
from coral_jax.figures import layer_tile, png
from coral_jax.recipe import Recipe, Seed, adjusted, check_domain, edit_of, face_of
from coral_jax.studio.sessions import Session

KEPT_EDITS = 16  # that stay in memory, the last ones used
KEPT_FACES = 256  # pictures of the gallery
TILE = 88  # px of a layer's tile
PREVIEW, FULL = "preview", "full"


class Easel:
    """Draws recipes.  Not for several threads at once: the server has one for drawing."""

    def __init__(self, runs: Path, weights_dir: str | None):
        self._runs, self._weights_dir = runs, weights_dir
        self._domains: dict[str, Domain] = {}
        self._edits: OrderedDict[str, Edit] = OrderedDict()
        self._faces: OrderedDict[tuple, bytes] = OrderedDict()

    def domain(self, name: str) -> Domain:
        """A domain, read when it is first asked for; ValueError for an unknown one."""
        if name not in self._domains:
            self._domains[name] = load_domain(name, self._weights_dir)
        return self._domains[name]

    def about(self, name: str) -> dict:
        """What the page needs to know of a domain."""
        domain = self.domain(name)
        generator = domain.generator
        truncation = domain.settings.get("truncation", 0.7)
        return {"name": name, "fingerprint": domain.fingerprint, "size": generator.size, "brush": brush_size(generator),
                "rows": generator.content_rows or (0, generator.size), "truncation": truncation,
                "preview": lowered(generator).size}  # fmt: skip

    def domains(self) -> list[str]:
        """Names of the domains that can be loaded; the package's own first."""
        return sorted(known_domains(self._weights_dir), key=lambda name: (name != "toons", name))

    def edits(self) -> list[dict]:
        """The edits of the package and the runs folder."""
        known = shelf.shelf(self._runs).values()
        return [{"name": one.name, "prompt": one.prompt, "method": one.method, "domain": one.domain, "tau": one.tau,
                 "sha256": one.sha256} for one in known]  # fmt: skip

    def face(self, domain_name: str, face: Seed) -> bytes:
        """A face of the gallery as PNG, at the preview's size."""
        key = (domain_name, face)
        if key not in self._faces:
            domain = self.domain(domain_name)
            self._faces[key] = png(Canvas(domain, face_of(face, domain), preview=True).original)
            while len(self._faces) > KEPT_FACES:
                self._faces.popitem(last=False)
        self._faces.move_to_end(key)
        return self._faces[key]

    def picture(self, session: Session, recipe: Recipe, size: str, *, edited: bool = True) -> bytes:
        """The picture of a recipe as PNG, before the edits or after; size: "preview", or "full", which is what is saved."""
        edits = self._adjusted(recipe)
        canvas = self._canvas(session, recipe, size if all(previews(one.edit) for one in edits) else FULL)
        return png(canvas.draw(edits).image if edited else canvas.original)

    def layers(self, session: Session, recipe: Recipe) -> list[list[dict]]:
        """Of each edit its layers: number, resolution, share of the picture, whether it carries the edit, and a tile."""
        edits = self._adjusted(recipe)
        shown = []
        canvas = self._canvas(session, recipe, PREVIEW if all(previews(one.edit) for one in edits) else FULL)
        drawn = canvas.draw(edits)
        count = len(canvas.domain.generator.layers)
        for one, masks in zip(edits, drawn.masks, strict=True):
            shares = canvas.shares(one, masks)
            shown.append([
                {"layer": share.layer, "resolution": share.resolution, "area": share.area, "matters": share.matters,
                 "tile": _source(layer_tile(drawn.image, mask, share, count, TILE))}
                for share, mask in zip(shares, masks, strict=True)
            ])  # fmt: skip
        return shown

    def _canvas(self, session: Session, recipe: Recipe, size: str) -> Canvas:
        domain = self.domain(recipe.domain)
        small = size == PREVIEW and lowered(domain.generator) is not domain.generator
        canvases = session.canvases_of((recipe.domain, recipe.face))
        key = PREVIEW if small else FULL
        if key not in canvases:
            canvases[key] = Canvas(domain, self._codes(session, recipe, domain), preview=small)
        return canvases[key]

    def _codes(self, session: Session, recipe: Recipe, domain: Domain) -> np.ndarray:
        return face_of(recipe.face, domain)

    def _adjusted(self, recipe: Recipe) -> list[Adjusted]:
        domain = self.domain(recipe.domain)
        check_domain(recipe, domain)
        return [adjusted(step, self._edit(step, domain)) for step in recipe.steps]

    def _edit(self, step: object, domain: Domain) -> Edit:
        key = (step.edit, step.weights_sha256, domain.fingerprint)
        if key not in self._edits:
            self._edits[key] = edit_of(step, domain, self._runs, self._weights_dir)
            while len(self._edits) > KEPT_EDITS:
                self._edits.popitem(last=False)
        self._edits.move_to_end(key)
        return self._edits[key]


def _source(image: Image.Image) -> str:
    """A picture as the source of an image in the page."""
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"
