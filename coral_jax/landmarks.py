"""Faces and their landmarks in any picture, by MediaPipe's face landmarker.

    python -m coral_jax.download landmarker

fetches its model file; the library is the optional dependency [photo].
"""

import os
import weakref
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coral_jax.domains import weights_folder

MODEL = "face_landmarker.task"
POINTS = 478
#: what is measured of a face's movements, in the landmarker's order; left and right are the person's own
BLENDSHAPES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight",
    "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
_MOST = 16  # faces looked for in one picture


class Face(NamedTuple):
    """points [478, 2]: (x, y) in pixels, x right and y down.  blendshapes: how much of each of BLENDSHAPES, 0 to 1."""

    points: np.ndarray
    blendshapes: dict[str, float]


def landmarker_model(weights_dir: str | os.PathLike | None = None) -> Path:
    """Where the landmarker's model file is; ValueError with the command that gets it."""
    path = weights_folder(weights_dir) / MODEL
    if not path.is_file():
        place = f" --weights_dir={weights_dir}" if weights_dir else ""
        raise ValueError(f"there is no {path}; get it: python -m coral_jax.download landmarker{place}")
    return path


class Landmarker:
    """MediaPipe's face landmarker, a context manager; one that is not closed is closed with the program."""

    def __init__(self, model_path: str | os.PathLike):
        """Read the model file; ValueError where it, or the library mediapipe, cannot be had."""
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            raise ValueError(f'finding faces needs mediapipe ({error}); type pip install -e ".[photo]"') from error
        options = vision.FaceLandmarkerOptions(
            # As bytes: the library takes no path outside ASCII on all systems.
            base_options=BaseOptions(model_asset_buffer=Path(model_path).read_bytes()),
            num_faces=_MOST,
            output_face_blendshapes=True,
        )
        try:
            self._landmarker = vision.FaceLandmarker.create_from_options(options)
        except RuntimeError as error:
            raise ValueError(f"{model_path} is no model of a face landmarker ({error})") from error
        self._close = weakref.finalize(self, _close, self._landmarker)
        self._image = lambda image: mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(image))

    def find(self, image: np.ndarray) -> list[Face]:
        """The faces in an RGB picture, bytes [H, W, 3], the largest first."""
        found = self._landmarker.detect(self._image(image))
        height, width = image.shape[:2]
        faces = [
            Face(
                np.array([(point.x * width, point.y * height) for point in points], np.float32),
                {shape.category_name: shape.score for shape in shapes},
            )
            for points, shapes in zip(found.face_landmarks, found.face_blendshapes, strict=True)
        ]
        return sorted(faces, key=lambda face: -float(np.ptp(face.points, axis=0).prod()))

    def close(self) -> None:
        """Free what MediaPipe holds; nothing can be found afterwards."""
        self._close()

    def __enter__(self) -> "Landmarker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _close(landmarker: object) -> None:
    """Close MediaPipe's object."""
    try:
        landmarker.close()
    except RuntimeError:  # Python shuts down and starts nothing any more; without a handle, the object does not try again
        landmarker._handle = None
