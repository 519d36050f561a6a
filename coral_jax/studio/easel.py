"""What the Edit tab shows: faces, edits on them, their layers; networks and edits are read once for all pages."""

import base64
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from coral_jax import shelf
from coral_jax.artifact import Edit
from coral_jax.canvas import Adjusted, Canvas, brush_size, lowered, previews
from coral_jax.domains import Domain, known_domains, load_domain
from coral_jax.figures import layer_tile, png
from coral_jax.recipe import Recipe, Step, adjusted, check_domain, edit_of
from coral_jax.sitter import Pictured, Seed, Sitter, photo_folders, pictured, sitter_of
from coral_jax.studio.sessions import Session

KEPT_EDITS = 16  # that stay in memory, the last ones used
KEPT_FACES = 256  # pictures of the gallery
TILE = 88  # px of a layer's tile
PREVIEW, FULL, SAVED = "preview", "full", "saved"


class Easel:
    """Draws recipes.  Not for several threads at once: the server has one for drawing."""

    def __init__(self, runs: Path, photos: Path, weights_dir: str | None):
        self._runs, self._photos, self._weights_dir = runs, photos, weights_dir
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
                "preview": lowered(generator).size, "finds_faces": domain.alignment is not None}  # fmt: skip

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
            sitter = sitter_of(face, self.domain(domain_name), self._photos)
            self._faces[key] = png(sitter.canvas(preview=True).original)
            while len(self._faces) > KEPT_FACES:
                self._faces.popitem(last=False)
        self._faces.move_to_end(key)
        return self._faces[key]

    def photos(self, session: Session, domain: str) -> list[dict]:
        """The photos of a domain, as recipes name them: the page's own, then those of the folder of photos."""
        folders = [(session.folder, True), (self._photos, False)]
        return [{"face": asdict(face), "own": own} for folder, own in folders for path in photo_folders(folder).values()
                if (face := pictured(path, domain)) is not None]  # fmt: skip

    def picture(self, session: Session, recipe: Recipe, size: str) -> bytes:
        """The face of a recipe as PNG, at the size of a preview or full; or "saved", the picture that the recipe draws."""
        edits = self._adjusted(recipe)
        sitter = self._sitter(session, recipe)
        canvas = self._canvas(session, sitter, size, edits)
        return sitter.picture(canvas, edits) if size == SAVED else png(Image.fromarray(sitter.face(canvas, edits)))

    def layers(self, session: Session, recipe: Recipe) -> list[list[dict]]:
        """Of each edit its layers: number, resolution, share of the picture, whether it carries the edit, and a tile."""
        edits = self._adjusted(recipe)
        canvas = self._canvas(session, self._sitter(session, recipe), PREVIEW, edits)
        drawn = canvas.draw(edits)
        count = len(canvas.domain.generator.layers)
        shown = []
        for one, masks in zip(edits, drawn.masks, strict=True):
            shares = canvas.shares(one, masks)
            shown.append([
                {"layer": share.layer, "resolution": share.resolution, "area": share.area, "matters": share.matters,
                 "tile": _source(layer_tile(drawn.image, mask, share, count, TILE))}
                for share, mask in zip(shares, masks, strict=True)
            ])  # fmt: skip
        return shown

    def _sitter(self, session: Session, recipe: Recipe) -> Sitter:
        face = recipe.face
        folders = photo_folders(session.folder) if isinstance(face, Pictured) else {}
        own = isinstance(face, Pictured) and face.photo in folders and pictured(folders[face.photo], recipe.domain) == face
        folder = session.folder if own else self._photos
        return session.sit((recipe.domain, face, own), lambda: sitter_of(face, self.domain(recipe.domain), folder))

    def _canvas(self, session: Session, sitter: Sitter, size: str, edits: list[Adjusted]) -> Canvas:
        generator = sitter.domain.generator
        small = size == PREVIEW and lowered(generator) is not generator and all(previews(one.edit) for one in edits)
        key = PREVIEW if small else FULL
        if key not in session.canvases:
            session.canvases[key] = sitter.canvas(preview=small)
        return session.canvases[key]

    def _adjusted(self, recipe: Recipe) -> list[Adjusted]:
        domain = self.domain(recipe.domain)
        check_domain(recipe, domain)
        return [adjusted(step, self._edit(step, domain)) for step in recipe.steps]

    def _edit(self, step: Step, domain: Domain) -> Edit:
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
