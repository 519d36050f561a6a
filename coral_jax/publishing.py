"""Publishing an edit: its weights, description, sheet and card as one zip file."""

import json
import tempfile
from pathlib import Path

import numpy as np

from coral_jax import weights
from coral_jax.artifact import describe_edit, edit_folder
from coral_jax.bundle import write_bundle
from coral_jax.domains import EMBEDDED
from coral_jax.runtime.files import read_json

LICENCES = {"toons": "Apache-2.0"}  # of the weights of embedded domains, and so of what was learned from them
_TRUTH = {"success": "faces that gain the attribute", "leak": "change outside the ideal edit's region",
          "drift": "other attributes that change", "identity": "cosine of face embeddings"}  # fmt: skip


def publish(folder: Path, out: Path, licence: str | None = None, *, half: bool = False, sheet: bool = True) -> Path:
    """Write the edit of a finished run, its sheet and its card as the zip file `out`, and return its path.

    licence: None takes that of an embedded domain's weights.  half: weights as float16.  ValueError for a folder without an
    edit, and without a licence.
    """
    edit = edit_folder(folder)
    description = describe_edit(edit)
    licence = licence or LICENCES.get(description["domain"])
    if licence is None:
        raise ValueError(
            f"the weights of domain {description['domain']!r} decide how this edit may be used; say it with "
            "--licence, such as --licence=CC-BY-NC-4.0"
        )
    if out.suffix != ".zip":
        raise ValueError(f"--out is {out}; give the name of a zip file, such as --out={out.name or 'edit'}.zip")
    summary_file, sheet_file = edit.parent / "summary.json", edit.parent / "sheet.png"
    summary = read_json(summary_file, "train it again") if summary_file.is_file() else {}
    sheet = sheet and sheet_file.is_file()
    with tempfile.TemporaryDirectory() as folder:
        weights_file = Path(folder) / "weights.safetensors"
        tensors, metadata = weights.load_tensors(edit / "weights.safetensors")
        if half:
            tensors = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
        weights.check_finite(tensors, "the edit as float16" if half else str(edit))
        weights.save_tensors(weights_file, tensors, metadata)
        description["weights_sha256"] = weights.fingerprint(weights_file)
        members = {
            "README.md": card(description, summary, licence, sheet).encode(),
            "edit.json": (json.dumps(description, indent=2, ensure_ascii=False) + "\n").encode(),
            "weights.safetensors": weights_file.read_bytes(),
        }
    if sheet:
        members["sheet.png"] = sheet_file.read_bytes()
    write_bundle(out, members)
    return out


def card(description: dict, summary: dict, licence: str, sheet: bool) -> str:
    """The card in Markdown: what edit.json and, where they are known, summary.json's measurements say."""
    prompt = description["prompt"]
    domain = description["domain"]
    rows = [("prompt", prompt), ("method", description["method"]), ("domain", domain),
            ("fingerprint of the domain's weights", f"`{description['domain_fingerprint']}`"),
            ("steps", description["settings"].get("steps")), ("tau", f"{description['tau']:g}"), ("seed", description["seed"]),
            ("licence", licence)]  # fmt: skip
    lines = [f"# {prompt}", "", f"A learned edit for `coral_jax`, on the domain {domain}.", ""]
    lines += ["![originals, edits, masks](sheet.png)", ""] if sheet else []
    lines += ["```sh", f"python -m coral_jax.edit --edit=THIS_FILE.zip --seeds=0-15 --alpha=1{_elsewhere(domain)}", "```", ""]
    lines += ["| field | value |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows)]
    if truth := summary.get("truth"):
        lines += ["", f"Measured against the ideal edit, on {truth['faces']} held-out faces:", ""]
        lines += ["| metric | value |", "|---|---|"]
        lines += [f"| {name}: {meaning} | {truth[name]:.2f} |" for name, meaning in _TRUTH.items() if name in truth]
    if layers := summary.get("layers"):
        lines += ["", "| layer | px | area of its mask |", "|---|---|---|"]
        lines += [f"| {row['layer']} | {row['resolution']} | {row['area']:.1%} |" for row in layers]
    return "\n".join(lines) + "\n"


def _elsewhere(domain: str) -> str:
    return "" if domain in EMBEDDED else " --weights_dir=FOLDER_OF_DOMAINS"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
