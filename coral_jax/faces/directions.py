"""Directions of w on which what a critic measures rises: how rare faces are made."""

import numpy as np

from coral_jax.faces.labels import Measures, hsv

#: what is made, and its share of the moved faces: most of it is rare among plain ones
SHARES = {
    "old": 2, "child": 1, "man": 1, "woman": 1, "sad": 3, "surprised": 3, "angry": 1, "happy": 1, "serious": 1, "open": 3,
    "closed": 8, "glasses": 4, "sunglasses": 3, "hat": 5, "beard": 3, "bald": 3, "long": 1, "bangs": 2, "blond": 1, "grey": 2,
    "red": 2,
}  # fmt: skip
UNITS = (3.5, 8.5)  # how far, in w; the distance of two faces is about 11
_COMPONENTS, _RIDGE = 80, 0.5
#: scores that a direction leaves as they are: faces with closed eyes laugh, and a CLIP must not take the laugh for them
_HELD = {"closed": ("happy", "open")}


def scores(m: Measures) -> dict[str, np.ndarray]:
    """What each direction raises, [N] for each of SHARES."""
    hue, saturation, _ = hsv(m["colour_hair"])
    light = m["colour_hair"].mean(axis=-1) / 255
    logs = {name: np.log(m[name] + 1e-4) for name in ("sad", "surprised", "angry", "happy", "neutral")}
    return {
        "old": m["age"], "child": -m["age"], "man": m["male"], "woman": -m["male"], "sad": logs["sad"],
        "surprised": logs["surprised"], "angry": logs["angry"], "happy": logs["happy"], "serious": logs["neutral"],
        "open": m["gap"], "closed": np.where(m["share_glasses"] < 0.001, -m["eye_height"], np.nan),
        "glasses": np.sqrt(m["share_glasses"]),
        "sunglasses": np.sqrt(m["share_glasses"]) * np.maximum(np.nan_to_num(m["cheek"] - m["light_glasses"]), 0),
        "hat": np.sqrt(m["share_hat"]), "beard": m["chin"] + m["upper_lip"], "bald": -np.sqrt(m["share_hair"]),
        "long": m["below"], "bangs": m["bangs"], "blond": light, "grey": light - 2 * saturation,
        "red": saturation - np.abs(hue - 14) / 40,
    }  # fmt: skip


def fit(w: np.ndarray, m: Measures) -> dict[str, np.ndarray]:
    """Unit vectors [w_dim], one for each score: ridge regression on the principal components of w [N, w_dim]."""
    centred = w - w.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:_COMPONENTS]
    spread = (centred @ axes.T).std(axis=0)
    x = centred @ axes.T / spread
    inverse = np.linalg.inv(x.T @ x / len(x) + _RIDGE * np.eye(x.shape[1]))
    found = {}
    for name, score in scores(m).items():
        score = np.where(np.isfinite(score), score, np.nanmedian(score))
        slope = inverse @ (x.T @ (score - score.mean()) / len(x)) / spread
        direction = slope @ axes
        found[name] = (direction / np.linalg.norm(direction)).astype(np.float32)
    for name, others in _HELD.items():
        found[name] = _without(found[name], np.stack([found[other] for other in others]))
    return found


def _without(direction: np.ndarray, others: np.ndarray) -> np.ndarray:
    """A direction [w_dim] without its part in the span of others [K, w_dim], along whose slopes other scores change."""
    rest = direction - others.T @ np.linalg.lstsq(others.T, direction, rcond=None)[0]
    return rest / np.linalg.norm(rest)


def moved(w: np.ndarray, directions: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """w [N, w_dim], each moved along one direction, and a third of them along a second one, forwards or backwards."""
    random = np.random.default_rng(seed)
    names, shares = list(SHARES), np.array(list(SHARES.values()), float)
    table = np.stack([directions[name] for name in names])
    first = random.choice(len(names), len(w), p=shares / shares.sum())
    second, sign = random.choice(len(names), len(w)), random.choice([-1.0, 0.0, 0.0, 0.0, 0.0, 1.0], len(w))
    step = random.uniform(*UNITS, (len(w), 1)) * table[first] + (4 * sign)[:, None] * table[second]
    return (w + step).astype(np.float32)
