"""Measures of edits that need no truth: distances between sets of images, distances between images, their uncertainty.

Distances of sets are clean-fid's (Parmar et al. 2022): Frechet distance (FID on Inception's features) and kernel distance
(KID).  Estimates come with 95 % intervals from resampling faces, and trainings where there are several (`estimate`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from coral_jax.losses import cosine
from coral_jax.models.clip import CLIP
from coral_jax.models.identity import Identity
from coral_jax.runtime.compiling import jit

LEVEL = 0.95  # of intervals
VISIBLE = 0.02  # of images' range of 2: two and a half grey levels
SUBSETS, SUBSET_SIZE = 100, 1000  # of KID, as clean-fid
_REPLICATES = {"ratio": 2000, "set": 200}


class Estimate(NamedTuple):
    """A measured value and its interval; the ends are None where nothing that was resampled makes it uncertain."""

    value: float
    low: float | None = None
    high: float | None = None


class Resampled(NamedTuple):
    """What one training measures: a value, and what it is on resampled faces [R]; None where faces do not matter.

    The faces of resample r are the same ones for every training of a prompt.
    """

    value: float
    drawn: np.ndarray | None = None


# ---- sets of images --------------------------------------------------------------------------------------------------


def clean_resize(image: np.ndarray, size: int = 299) -> np.ndarray:
    """Picture uint8 [H, W, 3] -> float32 [size, size, 3] in 0..255: each channel bicubic in float, as clean-fid does.

    Not rounded to whole levels again; what bicubic overshoots is clipped.
    """
    channels = [
        np.asarray(Image.fromarray(image[..., c].astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC))
        for c in range(3)
    ]
    return np.stack(channels, axis=-1).clip(0, 255)


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Frechet distance of the normal distributions of features x [N, D] and y [M, D], in float64.

    |mean_x - mean_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)).  With C_x = A'A and C_y = B'B (rows of A and B are the centred
    features), the last trace is the sum of the singular values of AB': no matrix root, and none of the trouble that
    roots of singular covariances (fewer images than features) make, so that clean-fid's 1e-6 on the diagonal is not needed.
    ValueError for fewer than two rows.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a Frechet distance of {len(x)} and {len(y)} images; give at least 2 of each")
    return _distance(_normal(x), _normal(y))


class _Normal(NamedTuple):
    """A normal distribution: its mean [D], and A [min(N, D), D] with A'A its covariance."""

    mean: np.ndarray
    root: np.ndarray


def _normal(x: np.ndarray) -> _Normal:
    """The distribution of features x [N, D]."""
    x = np.asarray(x, np.float64)
    mean = x.mean(axis=0)
    centred = (x - mean) / np.sqrt(len(x) - 1)
    return _Normal(mean, np.linalg.qr(centred, mode="r") if len(x) > x.shape[1] else centred)


def _distance(x: _Normal, y: _Normal) -> float:
    """The Frechet distance of two normal distributions."""
    between = np.sum((x.mean - y.mean) ** 2)
    overlap = np.linalg.svd(x.root @ y.root.T, compute_uv=False).sum()
    return float(max(between + np.sum(x.root**2) + np.sum(y.root**2) - 2 * overlap, 0.0))


def kernel_distance(x: np.ndarray, y: np.ndarray, *, paired: bool = False) -> float:
    """KID: the unbiased squared MMD of features x [N, D] and y [M, D] under the kernel (x.y / D + 1)^3.

    The mean over 100 random subsets of 1000 rows as clean-fid, or of all rows where there are fewer.  `paired`: row i of
    both is one face, edited and not; such pairs are alike for another reason, and are left out of the kernel's mean.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a kernel distance of {len(x)} and {len(y)} images; give at least 2 of each")
    if max(len(x), len(y)) <= SUBSET_SIZE:
        return _mmd(x, y, paired)
    rng, found = np.random.default_rng(0), []
    for _ in range(SUBSETS):
        rows = rng.choice(len(x), min(SUBSET_SIZE, len(x)), replace=False)
        others = rows if paired else rng.choice(len(y), min(SUBSET_SIZE, len(y)), replace=False)
        found.append(_mmd(x[rows], y[others], paired))
    return float(np.mean(found))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (np.asarray(x, np.float64) @ np.asarray(y, np.float64).T / x.shape[1] + 1) ** 3


def _apart(kernel: np.ndarray, counts: np.ndarray) -> float:
    """Mean of a kernel [N, N] over pairs of different rows, where row i counts counts[i] times."""
    pairs = counts.sum() ** 2 - np.sum(counts**2)
    return float((counts @ kernel @ counts - counts**2 @ np.diag(kernel)) / pairs)


def _mmd(x: np.ndarray, y: np.ndarray, paired: bool) -> float:
    across, ones = _kernel(x, y), np.ones(len(x))
    within = _apart(_kernel(x, x), ones) + _apart(_kernel(y, y), np.ones(len(y)))
    return within - 2 * (_apart(across, ones) if paired else float(across.mean()))


# ---- pairs of images -------------------------------------------------------------------------------------------------


@jit
def likeness(identity: Identity, original: jax.Array, edited: jax.Array) -> jax.Array:
    """Cosine of the identity network's embeddings of images [B, h, w, 3]: [B]."""
    return cosine(identity.embed(original), identity.embed(edited))


@jax.jit
def share_changed(original: jax.Array, edited: jax.Array) -> jax.Array:
    """Share of pixels of images [B, h, w, 3] that changed visibly in some channel: [B]."""
    return jnp.mean(jnp.max(jnp.abs(edited - original), axis=-1) > VISIBLE, axis=(1, 2))


@jit
def perceptual_distance(clip: CLIP, a: jax.Array, b: jax.Array) -> jax.Array:
    """How different images a and b [B, h, w, 3] look: [B], 0 for equal ones, at most 4.

    LPIPS (Zhang et al. 2018) on CLIP's image tower and without learned weights: the patches after every block (of a
    ResNet, the positions after every stage) are scaled to unit length; the squared distance of the two images' patches,
    mean over patches and blocks.
    """
    distances = []
    for patches in clip.patches(jnp.concatenate([a, b])):
        patches = patches.astype(jnp.float32)
        unit = patches / jnp.maximum(jnp.linalg.norm(patches, axis=-1, keepdims=True), 1e-6)
        first, second = jnp.split(unit, 2)
        distances.append(jnp.mean(jnp.sum(jnp.square(first - second), axis=-1), axis=1))
    return jnp.mean(jnp.stack(distances), axis=0)


def distance_outside(clip: CLIP, original: jax.Array, edited: jax.Array, inside: jax.Array) -> jax.Array:
    """`perceptual_distance` made by what changes outside a mask `inside` [B, h, w, 1] in [0, 1]: [B].

    Attention carries a change in one patch to the tokens of all others, so the change inside is taken back first.
    """
    return perceptual_distance(clip, original, inside * original + (1 - inside) * edited)


def enlarged(region: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A region [B, h, w, 1] at the size of images `like` [B, k h, k w, 3]."""
    times = like.shape[1] // region.shape[1]
    return np.asarray(region, np.float32).repeat(times, axis=1).repeat(times, axis=2)


@jax.jit
def union_of(masks: tuple[jax.Array, ...], like: jax.Array) -> jax.Array:
    """The largest mask of any layer at each pixel: masks [B, h, h] -> [B, H, W, 1] of images `like` [B, H, W, 3]."""
    batch, height, width, _ = like.shape
    union = jnp.max(jnp.stack([jax.image.resize(mask, (batch, width, width), "linear") for mask in masks]), axis=0)
    cut = (width - height) // 2  # of images without bars, which masks know nothing of
    return union[:, cut : width - cut, :, None].clip(0, 1)


# ---- layers ----------------------------------------------------------------------------------------------------------


class LayerShare(NamedTuple):
    """What one layer does: its number and resolution, mean share of the image its mask covers, norm of its delta."""

    layer: int
    resolution: int
    area: float
    delta_norm: float
    matters: bool


def layer_shares(
    resolutions: Sequence[int],
    areas: Sequence[float],
    delta_norms: Sequence[float],
    numbers: Sequence[int] | None = None,
) -> list[LayerShare]:
    """Shares of the masked layers, from the mean areas of their masks, 0 to 1; `matters` marks those that carry the edit.

    `numbers` are the layers', 1, 2, ... if not given.  A layer matters if its mask covers half a percent of the image or
    more, and area times norm of delta is at least a tenth of the largest: a wide mask over no change, and a large change
    under no mask, do nothing.
    """
    areas = [float(area) for area in areas]
    weights = [area * float(norm) for area, norm in zip(areas, delta_norms, strict=True)]
    largest = max(weights)
    return [
        LayerShare(number, resolution, area, float(norm), bool(area >= 0.005 and weight >= 0.1 * largest > 0))
        for number, resolution, area, norm, weight in zip(
            numbers or range(1, len(areas) + 1), resolutions, areas, delta_norms, weights, strict=True
        )
    ]


def area_weighted_layer(shares: Sequence[LayerShare]) -> float | None:
    """Mean layer number, weighted by the area of its mask: low for edits of shape, high for edits of colour."""
    total = sum(share.area for share in shares)
    return sum(share.layer * share.area for share in shares) / total if total else None


# ---- uncertainty -----------------------------------------------------------------------------------------------------


def estimate(trainings: Sequence[Resampled]) -> Estimate:
    """The mean of a metric over trainings that differ in their seed, all measured on the same faces, and its interval.

    A hierarchical bootstrap: each replicate draws trainings, and faces that these share.  One training less than there are
    is drawn, with replacement, which makes the spread of the means that of the mean (all of them would make it too small).
    """
    value, count = float(np.mean([one.value for one in trainings])), len(trainings)
    if count == 1 and trainings[0].drawn is None:
        return Estimate(value)
    of_each = np.stack([np.full(_REPLICATES["ratio"], one.value) if one.drawn is None else one.drawn for one in trainings])
    replicates = of_each.shape[1]
    chosen = np.random.default_rng(1).integers(count, size=(max(count - 1, 1), replicates))
    low, high = np.quantile(of_each[chosen, np.arange(replicates)].mean(axis=0), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(value, float(low), float(high))


def ratio(numerator: np.ndarray, denominator: np.ndarray | None = None) -> Resampled:
    """Sum over sum of two numbers a face, [N] each (the mean without a denominator)."""
    numerator = np.asarray(numerator, np.float64)
    denominator = np.ones(len(numerator)) if denominator is None else np.asarray(denominator, np.float64)

    def over(rows: np.ndarray) -> np.ndarray:
        return numerator[rows].sum(axis=-1) / np.maximum(denominator[rows].sum(axis=-1), 1e-6)

    return Resampled(float(over(np.arange(len(numerator)))), over(_resamples(len(numerator), _REPLICATES["ratio"])))


# Metrics that are the sum of one number a face over the sum of another, or over the faces.
RATIOS = {
    "success": ("succeeded", None), "leak": ("outside", "change"), "drift": ("drifted", "others"),
    "distance": ("missed", "ideal"), "clip_gain": ("clip_gain", None), "identity": ("identity", None),
    "recognised": ("recognised", None), "moved": ("moved", "landmarks"),
    "outside_truth": ("outside_truth", None), "outside_mask": ("outside_mask", None), "changed": ("changed", None),
}  # fmt: skip


def estimates(faces: dict[str, np.ndarray]) -> dict[str, Resampled]:
    """The metrics that numbers of each face, [N] by name, give."""
    return {
        name: ratio(faces[top], None if bottom is None else faces[bottom])
        for name, (top, bottom) in RATIOS.items()
        if top in faces
    }


def frechet_resampled(x: np.ndarray, y: np.ndarray, *, paired: bool) -> Resampled:
    """`frechet_distance` of edited x and others y; without `paired`, y is given and not resampled."""
    value, fixed = frechet_distance(x, y), None if paired else _normal(y)  # once: a reference may be large
    found = _around(value, len(x), lambda rows: _distance(_normal(x[rows]), _normal(y[rows]) if paired else fixed))
    return found._replace(drawn=np.maximum(found.drawn, 0.0))


def kernel_resampled(x: np.ndarray, y: np.ndarray, *, paired: bool) -> Resampled:
    """`kernel_distance` of edited x and others y; without `paired`, y is given and not resampled."""
    if paired:
        kernel, toward_others = _kernel(x, x) + _kernel(y, y) - _kernel(x, y) - _kernel(x, y).T, np.zeros(len(x))
    else:  # what y is among itself moves the value, not its spread
        kernel, toward_others = _kernel(x, x), _kernel(x, y).mean(axis=1)

    def statistic(rows: np.ndarray) -> float:
        counts = np.bincount(rows, minlength=len(x)).astype(np.float64)
        return _apart(kernel, counts) - 2 * counts @ toward_others / len(rows)

    return _around(kernel_distance(x, y, paired=paired), len(x), statistic)


def _around(value: float, count: int, statistic: Callable[[np.ndarray], float]) -> Resampled:
    """A statistic of resampled rows, laid around the value.

    A resample holds faces twice, which shifts distances between sets (the Frechet distance grows), so what is drawn is
    moved to have the value as its mean.
    """
    drawn = np.array([statistic(rows) for rows in _resamples(count, _REPLICATES["set"])])
    return Resampled(value, value + (drawn - drawn.mean()))


def _resamples(count: int, replicates: int) -> np.ndarray:
    """Rows drawn with replacement [replicates, count], the same ones every time."""
    return np.random.default_rng(0).integers(count, size=(replicates, count))
