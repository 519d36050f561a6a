"""Time and memory of a large photograph's whole way: found, inverted, edited and pasted back, each command a process.

    python -m benchmarks.photo --edit=runs/happy_faces --out=runs/large_photo

The photograph is made here: 4000 x 3000 pixels, with a generated face off its centre and turned by 20 degrees.  That no pixel
outside where.png changed is checked.  Writes photograph.png, table.json and table.md, and what the commands write.
"""

from pathlib import Path

import jax
import numpy as np
from absl import flags
from PIL import Image

from benchmarks.process import measured
from coral_jax import commands
from coral_jax.artifact import load_edit
from coral_jax.figures import to_pixels
from coral_jax.latents import w_plus_of_seeds
from coral_jax.photos.align import Square, box_around, mapped_back
from coral_jax.pictures import read_picture
from coral_jax.runtime.files import write_bytes, write_json

WIDTH, HEIGHT, SIDE, ANGLE = 4000, 3000, 1400.0, 20.0  # px, of the photograph and of the face's square; degrees


def photograph(face: np.ndarray) -> np.ndarray:
    """A photograph, uint8 [HEIGHT, WIDTH, 3], in which a face, uint8 [S, S, 3], lies turned, on a smooth ground."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(60, 200, (9, 12, 3), np.uint8))
    picture = np.array(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    angle = np.deg2rad(ANGLE)
    across = SIDE * np.array([np.cos(angle), np.sin(angle)])
    square = Square(np.array([2300.0, 900.0]), across, across[::-1] * (-1, 1))
    box = box_around(square, WIDTH, HEIGHT)
    share = mapped_back(np.ones(face.shape[:2], np.float32), square, box)
    for channel in range(3):
        ground = picture[box.slices][..., channel]
        ground[:] = np.rint(ground * (1 - share) + mapped_back(face[..., channel], square, box))
    return picture


def main() -> None:
    """Make the photograph, run the commands, check the pixels, write the table."""
    if not _EDIT.value:
        raise ValueError("no edit; type python -m benchmarks.photo --edit=runs/happy_faces")
    out, weights_dir = Path(_OUT.value), [f"--weights_dir={_WEIGHTS_DIR.value}"] * bool(_WEIGHTS_DIR.value)
    if out.exists():
        raise ValueError(f"{out} is there already; give another --out or remove it")
    domain = load_edit(_EDIT.value, _WEIGHTS_DIR.value).domain
    face = w_plus_of_seeds(domain.generator, [_SEED.value], domain.settings["truncation"])
    face = to_pixels(np.asarray(jax.jit(lambda g, w: g.synthesis(w))(domain.generator, face))[0])
    picture, photo = out / "photograph.png", out / "photo"
    out.mkdir(parents=True)
    Image.fromarray(photograph(face)).save(picture)
    jobs = {
        "align and invert": ["coral_jax.photo", f"--image={picture}", f"--domain={domain.name}", f"--out={photo}"],
        "edit and paste back": ["coral_jax.edit", f"--edit={_EDIT.value}", f"--photo={photo}", f"--out={out / 'edited'}"],
    }
    rows = {name: measured(["-m", *arguments, *weights_dir]) for name, arguments in jobs.items()}
    before, after = read_picture(picture), read_picture(out / "edited" / "photograph_alpha_+1.png")
    where = np.asarray(Image.open(out / "edited" / "where.png"))
    changed = int((before != after)[where == 0].sum())
    write_json(out / "table.json", {"rows": rows, "changed_outside": changed, "inside": float((where > 0).mean())})
    lines = [f"| at {WIDTH} x {HEIGHT} | seconds | peak memory |", "|---|---|---|"]
    lines += [f"| {name} | {row['seconds']:.0f} | {row['peak_gb']:.1f} GB |" for name, row in rows.items()]
    write_bytes(out / "table.md", ("\n".join(lines) + "\n").encode())
    print("\n".join(lines))
    print(f"{changed} numbers outside where.png changed; it covers {(where > 0).mean():.1%}")


if __name__ == "__main__":
    _EDIT = flags.DEFINE_string("edit", None, "A finished run whose edit is drawn.")
    _OUT = flags.DEFINE_string("out", "runs/large_photo", "Folder of all that is made.")
    _SEED = flags.DEFINE_integer("seed", 4_000_000, "Which face.")
    _WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Folder of domains other than the embedded ones.")
    commands.run(main)
