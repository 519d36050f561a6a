"""Distances of image sets against clean-fid's numbers, distances of images, and their intervals."""

from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from flax import nnx
from PIL import Image

from coral_jax import weights
from coral_jax.evaluation.features import embedder
from coral_jax.evaluation.pictures import pictures
from coral_jax.metrics import (
    Resampled,
    clean_resize,
    distance_outside,
    estimate,
    frechet_distance,
    frechet_resampled,
    kernel_distance,
    kernel_resampled,
    perceptual_distance,
    ratio,
    share_changed,
    union_of,
)
from coral_jax.models.clip import CLIP
from coral_jax.models.inception import FEATURES, Inception, InceptionConfig

DATA = Path(__file__).parent / "data"
GOLDEN = weights.load_tensors(DATA / "clean_fid.safetensors")[0]  # made by clean-fid
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def clip():
    return tiny.build(lambda: CLIP(tiny.CLIP_SIZES, nnx.Rngs(0)), 1)


def images(count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 16, 16, 3)).astype(np.float32)


def test_resize_is_clean_fids_both_up_and_down():
    up = clean_resize(GOLDEN["image_a"])
    np.testing.assert_allclose(up[::8, ::8], GOLDEN["image_a_299"], rtol=1e-5, atol=1e-3)
    down = clean_resize(np.asarray(Image.open(DATA / "clean_fid_b.png")))
    np.testing.assert_allclose(down[::8, ::8], GOLDEN["image_b_299"], rtol=1e-5, atol=1e-3)
    assert up.min() >= 0 and up.max() <= 255 and np.any(up != np.round(up))


def test_frechet_distance_is_clean_fids():
    found = frechet_distance(GOLDEN["features_x"], GOLDEN["features_y"])
    assert found == pytest.approx(float(GOLDEN["frechet"][0]), rel=1e-6)


def test_frechet_distance_of_fewer_images_than_features():
    """Against the definition: eigenvalues of the product of the covariances."""
    x, y = RNG.standard_normal((10, 24)), 1.5 * RNG.standard_normal((14, 24)) + 0.2
    covariances = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)).sum()
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(covariances[0] + covariances[1]) - 2 * roots
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_is_the_unbiased_mmd():
    x, y = RNG.standard_normal((7, 4)), RNG.standard_normal((5, 4)) + 0.5

    def kernel(a, b):
        return (a @ b / 4 + 1) ** 3

    within = [np.mean([kernel(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]) for s in (x, y)]
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(sum(within) - 2 * across)
    assert kernel_distance(x, x, paired=True) == pytest.approx(0, abs=1e-9)
    many = RNG.standard_normal((1100, 4))  # more than a subset
    assert abs(kernel_distance(many, RNG.standard_normal((1200, 4)))) < 0.02


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_one_image_has_no_distance(distance):
    with pytest.raises(ValueError, match="of 1 and 3 images; give at least 2"):
        distance(np.zeros((1, 4)), np.zeros((3, 4)))


@pytest.mark.parametrize("resampled", [frechet_resampled, kernel_resampled])
def test_intervals_of_set_distances_lie_around_the_value(resampled):
    x = RNG.standard_normal((60, 6))
    for y, paired in ((x + 0.3 * RNG.standard_normal(x.shape), True), (RNG.standard_normal((80, 6)) + 1, False)):
        found = estimate([resampled(x, y, paired=paired)])
        assert found.low < found.value < found.high
        assert found == estimate([resampled(x, y, paired=paired)])
    assert np.abs(estimate([resampled(x, x, paired=True)])).max() < 1e-9


def test_a_ratio_has_the_interval_of_its_mean():
    values = RNG.standard_normal(400) + 3
    found = estimate([ratio(values)])
    error = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    np.testing.assert_allclose([found.low, found.high], values.mean() + np.array([-error, error]), atol=0.2 * error)
    assert estimate([ratio(np.ones(5, bool))]) == (1, 1, 1)
    assert ratio(np.array([1.0, 3.0]), np.array([2.0, 6.0])).value == 0.5
    assert ratio(np.zeros(4), np.zeros(4)).value == 0  # an edit that changes nothing leaks nothing


def test_an_interval_over_trainings_has_the_spread_of_faces_and_of_trainings():
    rng, errors = np.random.default_rng(5), []
    faces = rng.standard_normal(100)
    for _ in range(40):  # trainings and faces both move the mean; faces do it in all trainings alike
        found = estimate([ratio(faces + offset) for offset in rng.standard_normal(12)])
        assert found.low < found.value < found.high
        errors.append((found.high - found.low) / 2 / 1.96)
    assert np.mean(errors) == pytest.approx(np.sqrt(1 / 12 + faces.var() / 100), rel=0.1)


def test_alike_trainings_have_the_interval_of_one_and_numbers_without_faces_that_of_trainings():
    one = ratio(RNG.standard_normal(50))
    np.testing.assert_allclose(estimate([one] * 3), estimate([one]))
    assert estimate([Resampled(7.0)]) == (7.0, None, None)
    assert estimate([Resampled(seconds) for seconds in (6.0, 7.0, 11.0)]) == (8.0, 6.0, 11.0)


def test_share_changed_counts_pixels():
    a = images(2)
    b = a.copy()
    b[0, :4, :8, 1] += 0.1
    b[1] += 0.001
    np.testing.assert_allclose(share_changed(a, b), [32 / 256, 0])


def test_perceptual_distance_is_of_unit_tokens(clip):
    a, b = images(3), images(3, seed=1)
    found = perceptual_distance(clip, a, b)
    assert found.shape == (3,) and np.all(found > 0) and np.all(found <= 4)
    np.testing.assert_allclose(perceptual_distance(clip, a, a), 0, atol=1e-6)
    expected = []
    for x, y in zip(clip.vision.tokens(clip.preprocess(a)), clip.vision.tokens(clip.preprocess(b)), strict=True):
        x, y = (np.asarray(t[:, 1:]) / np.linalg.norm(t[:, 1:], axis=-1, keepdims=True) for t in (x, y))
        expected.append(((x - y) ** 2).sum(-1).mean(-1))
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-4)


def test_distance_outside_does_not_see_the_inside(clip):
    a, inside = images(2), np.zeros((2, 16, 16, 1), np.float32)
    inside[:, :8] = 1
    edited = a.copy()
    edited[:, :8] = 0.5
    np.testing.assert_allclose(distance_outside(clip, a, edited, inside), 0, atol=1e-6)
    assert np.all(distance_outside(clip, a, edited, 1 - inside) > 1e-3)


def test_union_of_masks_is_their_largest():
    coarse, fine = np.zeros((1, 4, 4), np.float32), np.zeros((1, 16, 16), np.float32)
    coarse[0, 0, 0], fine[0, 15, 15] = 1, 0.5
    union = np.asarray(union_of((coarse, fine), images(1)))
    assert union.shape == (1, 16, 16, 1) and union[0, 0, 0, 0] == 1 and union[0, 15, 15, 0] == 0.5


def test_masks_lie_on_images_without_bars_as_on_whole_ones():
    mask = RNG.uniform(size=(1, 8, 8)).astype(np.float32)
    whole = np.asarray(union_of((mask,), images(1)))
    np.testing.assert_array_equal(union_of((mask,), images(1)[:, 2:14]), whole[:, 2:14])


def test_without_inception_distances_are_clips_and_named_so(domain, weights_dir):
    found = embedder(domain, None, weights_dir)
    assert (found.frechet, found.kernel) == ("clip_fd", "clip_kd")
    some = [np.asarray(Image.fromarray(GOLDEN["image_a"]).resize((20 + i, 24))) for i in range(9)]
    features = found.features(iter(some))
    assert features.shape == (9, 8)
    np.testing.assert_allclose(features[8:], found.features(some[8:]), rtol=1e-5)


def test_inception_in_the_weights_folder_makes_it_fid(domain, tmp_path, monkeypatch):
    network = nnx.eval_shape(lambda: Inception(InceptionConfig(), nnx.Rngs(0)))
    monkeypatch.setattr(weights, "load", lambda path: network)
    (tmp_path / "inception.safetensors").write_bytes(b"weights")
    found = embedder(domain, None, tmp_path)
    assert (found.frechet, found.kernel) == ("fid", "kid")
    monkeypatch.setattr("coral_jax.evaluation.features._embed", lambda network, x: np.full((len(x), FEATURES), x.max()))
    features = found.features([np.full((64, 64, 3), 255, np.uint8)])
    np.testing.assert_allclose(features, np.full((1, FEATURES), 127 / 128))  # (x - 128) / 128, as clean-fid


def test_mistakes_with_inception_are_explained(domain, weights_dir):
    with pytest.raises(ValueError, match="there is no file lost.safetensors; make one with"):
        embedder(domain, "lost.safetensors", weights_dir)
    with pytest.raises(ValueError, match="of the kind CLIP; give a file of"):
        embedder(domain, str(weights_dir / "tiny" / "clip.safetensors"), weights_dir)


def test_pictures_of_a_folder_are_read_one_by_one(tmp_path):
    Image.new("L", (5, 4), 7).save(tmp_path / "b.png")
    (tmp_path / "more").mkdir()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "more" / "c.JPEG")
    (tmp_path / "notes.txt").write_text("no picture")
    found = pictures(str(tmp_path))
    assert found.count == 2 and [picture.shape for picture in found.images] == [(4, 5, 3), (2, 3, 3)]
    (tmp_path / "broken.png").write_bytes(b"none")
    with pytest.raises(ValueError, match="broken.png cannot be read as a picture"):
        list(pictures(str(tmp_path)).images)
    (tmp_path / "empty").mkdir()
    for folder, message in (("lost", "there is no folder"), ("empty", "holds no pictures")):
        with pytest.raises(ValueError, match=message):
            pictures(str(tmp_path / folder))


def test_pictures_of_a_data_set_are_read_without_tensorflow(tmp_path, monkeypatch):
    import io
    import sys

    import tensorflow_datasets as tfds

    class TinyFaces(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"image": tfds.features.Image()}))

        def _split_generators(self, _):
            return {"test": ((i, {"image": self._picture(i)}) for i in range(3))}

        def _generate_examples(self):
            raise NotImplementedError

        @staticmethod
        def _picture(level):
            file = io.BytesIO()
            Image.new("RGB", (6, 5), (level,) * 3).save(file, "PNG")
            file.seek(0)  # encoded already: encoding is what tensorflow-datasets needs TensorFlow for
            return file

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    TinyFaces(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    found = pictures("tfds:tiny_faces@test")
    assert found.count == 3
    assert sorted((picture.shape, int(picture[0, 0, 0])) for picture in found.images) == [((5, 6, 3), i) for i in range(3)]
    assert "tensorflow" not in sys.modules
    for name, message in (("tfds:tiny_faces", "Unknown split 'train'"), ("tfds:no_such_set@test", "no_such_set not found")):
        with pytest.raises(ValueError, match=message):
            pictures(name)


def test_kernels_of_jax_arrays_are_computed_in_float64():
    x = jax.numpy.asarray(RNG.standard_normal((6, 3)), jax.numpy.float32)
    assert frechet_distance(np.asarray(x), np.asarray(x) + 1) == pytest.approx(3, rel=1e-6)
