"""Photographs as a user gives them: made into photos, edited, and what is said where that cannot be."""

import json
import sys
import types

import jax
import numpy as np
import pytest
from conftest import make_domain
from flax import nnx
from PIL import Image

from coral_jax import landmarks, weights
from coral_jax.artifact import load_edit
from coral_jax.domains import load_domain
from coral_jax.landmarks import Face
from coral_jax.latents import w_plus_of_seeds
from coral_jax.models.efficientnet import EfficientNet, EfficientNetConfig
from coral_jax.models.encoder import FlatEncoder, FlatEncoderConfig
from coral_jax.photos import likeness, making
from coral_jax.photos.align import square_of_points
from coral_jax.photos.apply import apply_to_photo
from coral_jax.photos.finding import found_face, given_face, sources_of
from coral_jax.photos.invert import Plan
from coral_jax.photos.likeness import imagenet_of
from coral_jax.photos.making import Effort, effort_of, make_photos
from coral_jax.photos.photo import load_photo
from coral_jax.photos.tune import Tuning
from coral_jax.pictures import MOST_PIXELS, read_picture

EFFORT = Effort(Plan(0, 6, 0.1, 0.01, 0.1), Tuning(3, 0.01, 1.0))


@pytest.fixture(autouse=True)
def little_effort(monkeypatch):
    monkeypatch.setattr(making, "effort_of", lambda generator, likeness: EFFORT)


def points_at(x, y, size):
    """Landmarks of an upright face whose eyes are at (x, y), `size` apart."""
    points = np.zeros((478, 2), np.float32)
    points[[33, 133, 362, 263]] = [[x - 0.7 * size, y], [x - 0.3 * size, y], [x + 0.3 * size, y], [x + 0.7 * size, y]]
    points[[61, 291]] = [[x - 0.4 * size, y + size], [x + 0.4 * size, y + size]]
    return points


class Finder:
    """A landmarker that finds these faces."""

    def __init__(self, *points):
        self.faces = [Face(one, {}) for one in points]

    def find(self, image):
        return self.faces


def save(path, height=60, width=90, **options):
    rng = np.random.default_rng(0)
    picture = np.asarray(Image.fromarray(rng.integers(0, 255, (6, 9, 3), np.uint8)).resize((width, height)))
    Image.fromarray(picture).save(path, **options)
    return picture


def made(domain, path, out, number=None, finder=None, **options):
    finder = finder or Finder(points_at(40, 25, 12))
    sources = sources_of([path], out)
    make_photos(domain, sources, lambda picture, path: found_face(finder, picture, path, number), 0.5, **options)
    return load_photo(out)


@pytest.fixture(scope="module")
def edit(trained, weights_dir):
    return load_edit(trained.folder, weights_dir)


def test_a_photograph_is_edited_and_the_rest_stays(domain, edit, tmp_path, capsys):
    picture = save(tmp_path / "me too.png")
    photo = made(domain, tmp_path / "me too.png", tmp_path / "photo")
    assert photo.name == "me_too" and photo.w_plus.shape == (domain.generator.n_latent, domain.generator.w_dim)
    assert photo.tuned and not list((tmp_path / "photo").glob("unfinished*"))
    apply_to_photo(edit, tmp_path / "photo", [0.5, 1.0], None, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    ours = {f"{kind}_alpha_{alpha}.png" for kind in ("me_too", "crop") for alpha in ("+0.5", "+1")}
    assert names == ours | {"aligned.png", "inverted.png", "where.png", "masks", "sheet.png"}
    edited = np.asarray(Image.open(tmp_path / "out" / "me_too_alpha_+1.png"))
    where = np.asarray(Image.open(tmp_path / "out" / "where.png"))
    np.testing.assert_array_equal(edited[where == 0], picture[where == 0])
    assert (edited != picture).any() and 0 < (where > 0).mean() < 1
    inverted = np.asarray(Image.open(tmp_path / "photo" / "inverted.png")).astype(int)
    assert np.abs(inverted - np.asarray(Image.open(tmp_path / "out" / "inverted.png"))).max() <= 1
    assert "sheet.png shows them" in capsys.readouterr().err


def test_a_finished_photo_is_not_inverted_again(domain, tmp_path, monkeypatch):
    save(tmp_path / "me.png")
    made(domain, tmp_path / "me.png", tmp_path / "photo")
    monkeypatch.setattr(making, "_Maker", None)  # what inverts
    made(domain, tmp_path / "me.png", tmp_path / "photo")
    save(tmp_path / "me.png", width=80)
    with pytest.raises(ValueError, match="holds me for the domain tiny with --likeness=0.5, made of another picture"):
        made(domain, tmp_path / "me.png", tmp_path / "photo")


def test_an_imagenet_network_looks_at_large_pictures_where_it_is(domain, weights_dir, tmp_path, monkeypatch, capsys):
    save(tmp_path / "me.png")
    assert imagenet_of(domain, tmp_path) is None  # 16 px
    made(domain, tmp_path / "me.png", tmp_path / "small", weights_dir=tmp_path)
    monkeypatch.setattr(likeness, "_IMAGENET_SIZE", 16)
    without = made(domain, tmp_path / "me.png", tmp_path / "without", weights_dir=tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if "imagenet.safe" in line]
    path = tmp_path / "imagenet.safetensors"
    command = f"python -m coral_jax.download imagenet --weights_dir={tmp_path}"
    assert said == [f"there is no {path}; inversions come nearer with {command}"]
    weights.save(path, EfficientNet(EfficientNetConfig(8, 4, ((1, 3, 1, 1, 4), (1, 3, 2, 2, 6)), (0, 1)), nnx.Rngs(0)))
    with_it = made(domain, tmp_path / "me.png", tmp_path / "with", weights_dir=tmp_path)
    assert "imagenet.safe" not in capsys.readouterr().err
    small = load_photo(tmp_path / "small")
    np.testing.assert_array_equal(small.w_plus, without.w_plus)
    assert np.abs(with_it.w_plus - without.w_plus).max() > 1e-3
    path.write_bytes((weights_dir / "tiny" / "clip.safetensors").read_bytes())
    with pytest.raises(ValueError, match="imagenet.safetensors holds a network of the kind CLIP, not an EfficientNet"):
        made(domain, tmp_path / "me.png", tmp_path / "other", weights_dir=tmp_path)


def test_several_pictures_get_a_folder_each_and_the_same_codes_together(domain, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for name, width in (("a", 90), ("b", 70)):
        save(tmp_path / "in" / f"{name}.jpg", width=width)
    (tmp_path / "in" / "notes.txt").write_text("")
    monkeypatch.setattr(making, "effort_of", lambda generator, likeness: EFFORT._replace(tuning=Tuning(0, 0.0, 0.0)))
    finder = Finder(points_at(40, 25, 12))
    locate = lambda picture, path: found_face(finder, picture, path, None)  # noqa: E731
    make_photos(domain, sources_of([tmp_path / "in"], tmp_path / "two"), locate, 0.5, batch=2)
    make_photos(domain, sources_of([tmp_path / "in"], tmp_path / "one"), locate, 0.5)
    for name in ("a", "b"):
        together, alone = (load_photo(tmp_path / folder / name) for folder in ("two", "one"))
        np.testing.assert_allclose(together.w_plus, alone.w_plus, atol=1e-3)
        assert not together.tuned


def test_the_largest_face_is_taken_or_the_one_that_is_asked_for(tmp_path, capsys):
    finder = Finder(points_at(40, 25, 12), points_at(70, 25, 6), points_at(10, 25, 3))
    assert found_face(finder, None, "x.png", None).side == pytest.approx(square_of_points(points_at(40, 25, 12)).side)
    assert "x.png: 3 faces; this is the largest one, --face=2 to --face=3 take others" in capsys.readouterr().err
    assert found_face(finder, None, "x.png", 3).side == pytest.approx(square_of_points(points_at(10, 25, 3)).side)
    assert not capsys.readouterr().err
    with pytest.raises(ValueError, match=r"--face=4, and x.png has 3 face\(s\); give a number from 1 to 3"):
        found_face(finder, None, "x.png", 4)
    with pytest.raises(ValueError, match="no face was found in x.png; give a picture in which a face"):
        found_face(Finder(), None, "x.png", None)


def test_pictures_that_are_aligned_are_taken_whole(domain, tmp_path):
    picture = save(tmp_path / "me.png", 32, 32)
    make_photos(domain, sources_of([tmp_path / "me.png"], tmp_path / "photo"), given_face, 0.5)
    aligned = load_photo(tmp_path / "photo").aligned(32)
    np.testing.assert_array_equal(aligned, picture)
    with pytest.raises(ValueError, match="x.png has 90 x 60 pixels, and an aligned picture is square; leave --aligned out"):
        given_face(np.zeros((60, 90, 3), np.uint8), "x.png")


@pytest.mark.parametrize("kind", ["L", "LA", "RGBA", "P", "CMYK", "I;16", "1"])
def test_pictures_of_every_kind_become_photos(domain, tmp_path, kind):
    grey = np.linspace(0, 255, 60 * 90).reshape(60, 90).astype(np.uint8)
    if kind == "I;16":
        Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "me.png")
    else:
        Image.fromarray(grey).convert("RGB").convert(kind).save(tmp_path / f"me.{'jpg' if kind == 'CMYK' else 'png'}")
    path = next(tmp_path.glob("me.*"))
    source = sources_of([path], tmp_path / "photo")[0]
    making._begun(domain, source, lambda picture, path: square_of_points(points_at(40, 25, 12)), 0.5)
    kept = load_photo(tmp_path / "photo").picture
    assert kept.shape == (60, 90, 3) and kept[-1].mean() > kept[0].mean() + 150


def test_photographs_keep_their_orientation(domain, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = save(tmp_path / "me.png", exif=exif)
    source = sources_of([tmp_path / "me.png"], tmp_path / "photo")[0]
    making._begun(domain, source, lambda picture, path: square_of_points(points_at(30, 40, 10)), 0.5)
    np.testing.assert_array_equal(load_photo(tmp_path / "photo").picture, np.rot90(picture, -1))


def test_pictures_that_cannot_be_read_are_explained(tmp_path, monkeypatch):
    save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "me.heic").write_bytes(b"")
    Image.new("1", (10_001, 10_000)).save(tmp_path / "large.png")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for name, message in {
        "cut.jpg": "cut.jpg cannot be read as a picture .*truncated",
        "text.jpg": "text.jpg cannot be read as a picture .*cannot identify",
        "empty.png": "empty.png cannot be read as a picture",
        "me.heic": "me.heic is HEIC, which needs a plug-in: pip install pillow-heif",
        "large.png": f"10001 x 10000 pixels, and at most {MOST_PIXELS // 10**6} million are read: make it smaller",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            read_picture(tmp_path / name)
        assert len(str(caught.value).splitlines()) == 1
    for images, message in (
        ([tmp_path / "lost.png"], "there is no picture .*lost.png"), ([tmp_path / "none"], "there is no picture in")
    ):  # fmt: skip
        (tmp_path / "none").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=message):
            sources_of(images, tmp_path / "out")
    (tmp_path / "other").mkdir()
    save(tmp_path / "other" / "whole.jpg")
    with pytest.raises(ValueError, match="would share the folder"):
        sources_of([tmp_path / "whole.jpg", tmp_path / "other" / "whole.jpg"], tmp_path / "out")


def test_heic_is_read_where_its_plug_in_is(tmp_path, monkeypatch):
    picture = save(tmp_path / "me.png")
    (tmp_path / "me.png").rename(tmp_path / "me.heic")
    opener = types.SimpleNamespace(register_heif_opener=lambda: asked.append(True))
    asked = []
    monkeypatch.setitem(sys.modules, "pillow_heif", opener)
    np.testing.assert_array_equal(read_picture(tmp_path / "me.heic"), picture)
    assert asked


def test_a_photo_of_another_domain_is_refused(domain, edit, tmp_path):
    save(tmp_path / "me.png", 32, 32)
    make_domain(tmp_path / "weights" / "other", seed=1)
    other = load_domain("other", tmp_path / "weights")
    source = sources_of([tmp_path / "me.png"], tmp_path / "photo")[0]
    making._begun(other, source, given_face, 0.5)
    with pytest.raises(ValueError, match="was made for the domain 'other', and the edit is of 'tiny'; make it again with"):
        apply_to_photo(edit, tmp_path / "photo", [1.0], None, tmp_path / "out")
    described = json.loads((tmp_path / "photo" / "photo.json").read_text())
    for changes, message in (
        ({"domain": "tiny"}, "made with other weights of the domain 'tiny'"),
        ({"domain": "tiny", "domain_fingerprint": domain.fingerprint}, "is not inverted yet; type the"),
        ({"square": [[0, 1]]}, "is not a photo's description"),
        ({"format": 99}, "has the format 99, this version reads 1"),
        ({"codes_sha256": "0"}, "codes.safetensors is not the file that photo.json describes"),
    ):
        (tmp_path / "photo" / "photo.json").write_text(json.dumps(described | changes))
        with pytest.raises(ValueError, match=message):
            apply_to_photo(edit, tmp_path / "photo", [1.0], None, tmp_path / "out")
    with pytest.raises(ValueError, match="no photo in .*; make one with python -m coral_jax.photo --image=me.jpg"):
        apply_to_photo(edit, tmp_path / "none", [1.0], None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_library_or_model_is_named_with_its_command(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="python -m coral_jax.download landmarker"):
        landmarks.landmarker_model(tmp_path)
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    (tmp_path / landmarks.MODEL).write_bytes(b"")
    with pytest.raises(ValueError, match=r'pip install -e ".\[photo\]"'):
        landmarks.Landmarker(landmarks.landmarker_model(tmp_path))


def test_more_likeness_pulls_less_and_tunes_more(domain):
    low, high = effort_of(domain.generator, 0.2), effort_of(domain.generator, 0.9)
    assert low.plan.pull > high.plan.pull and low.plan.pull_offsets > high.plan.pull_offsets
    half, most = (effort_of(domain.generator, likeness).tuning.steps for likeness in (0.5, 1.0))
    assert half == 0 < high.tuning.steps < most
    assert low.plan.steps < high.plan.steps
    with pytest.raises(ValueError, match="likeness is 1.5; give a number from 0"):
        effort_of(domain.generator, 1.5)


def test_an_encoder_of_another_generator_is_refused(weights_dir, tmp_path):
    folder = make_domain(tmp_path / "coded", encoder="encoder.safetensors", alignment="ffhq")
    config = FlatEncoderConfig(16, (4,), 4, 5, 5)
    weights.save(folder / "encoder.safetensors", FlatEncoder(config, nnx.Rngs(0)))
    coded = load_domain("coded", tmp_path)
    assert coded.alignment == "ffhq"
    with pytest.raises(ValueError, match="gives 5 codes of 5, and the generator of coded reads 6 of 5"):
        coded.encoder()
    assert load_domain("tiny", weights_dir).encoder() is None


def test_generated_faces_are_found_again(domain, tmp_path):
    w_plus = w_plus_of_seeds(domain.generator, [1], 0.8)
    image = np.asarray(jax.jit(lambda g, w: g.synthesis(w))(domain.generator, w_plus))[0]
    Image.fromarray(np.uint8(np.clip(image * 127.5 + 127.5, 0, 255))).save(tmp_path / "x.png")
    make_photos(domain, sources_of([tmp_path / "x.png"], tmp_path / "x"), given_face, 0.5)
    inverted = np.asarray(Image.open(tmp_path / "x" / "inverted.png"))
    assert inverted.shape == (16, 16, 3)
