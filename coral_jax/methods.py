"""Every method as a choice of parts: CORAL's four, and the baselines of the paper's Table 1 as their authors run them.

| method                 | where            | what               | drawn by        | learns by             | D_CLIP of | L2   |
|------------------------|------------------|--------------------|-----------------|-----------------------|-----------|------|
| segment_global         | segments         | global direction   | eq. 1           | Adam                  | I*, I~    | sum  |
| segment_mapper         | segments         | mapper             | eq. 1           | Adam                  | I*, I~    | sum  |
| attention_global       | attention        | global direction   | eq. 1           | Adam                  | I*, I~    | sum  |
| attention_mapper       | attention        | mapper             | eq. 1           | Adam                  | I*, I~    | sum  |
| feat_7, feat_13        | attention, one   | mapper             | one blending    | Adam                  | I*, I~    | sum  |
| styleclip_optimization | the whole image  | a delta per face   | w + delta       | Adam, ramped          | I*        | sum  |
| styleclip_mapper       | the whole image  | StyleCLIP's mapper | w + delta       | Ranger                | I*        | mean |
| styleclip_global       | the whole image  | relevant channels  | styles + delta  | from the text         | I*        | -    |
| stylemc                | the whole image  | style direction    | styles + delta  | SGD with sign counts  | I*        | -    |

How the baselines differ from what their authors run:

- All: images are normalised for CLIP as CLIP was trained (StyleCLIP's optimisation and mapper leave mean and deviation
  out), the generator's noise is the stored one, faces are drawn from z and not inverted photographs.
- styleclip_mapper: faces drawn from one z have the same code in every layer, of which `LevelsMapper`'s pixel norm leaves
  the signs; StyleCLIP's inverted faces differ from layer to layer.  On toons its rate is 150, not 0.5: gradients there
  are small beside Ranger's epsilon.
- styleclip_optimization: nothing is learned that serves other faces.  Training finds the deltas of the faces of the
  sheet; applying the edit finds those of the faces it is given, with the same steps, and alpha scales them.  On toons it
  takes 40 steps at rate 0.2, not 300 at 0.1.
- styleclip_global: what a channel does is found on fewer faces where the domain is embedded (`relevance.FACES`); the texts
  are those of `wordings`.  One step computes the edit, a second one logs what it does.  tau is their beta: channels of lower
  relevance are left alone, and 0 picks it by their rule.
- stylemc: one batch a step, as its authors count; their rate and identity weight for a loss that is a mean (`stylemc`).
  They draw 1024-px faces at 256 px only, which is `loss_resolution=256` here, and clip images before CLIP reads them.
- feat_7, feat_13: FEAT* as the paper describes it (no code of FEAT is published), with CORAL's mapper, mask head and
  losses (section 4.2: "equivalent settings"); 7 and 13 count the paper's layers and are scaled to other generators.
"""

from dataclasses import dataclass

import jax
from flax import nnx

from coral_jax.baselines.stylemc import edited_convolutions
from coral_jax.baselines.stylespace import ChannelSelection, StyleDirection, style_widths
from coral_jax.blend import edit_layers_of, single_layer_of
from coral_jax.editors import EditorConfig, FaceDeltas, GlobalDirection, LatentMapper, LevelsMapper
from coral_jax.models.generator import Generator
from coral_jax.regions import (
    AttentionNetwork,
    SegmentSelection,
    attention_network,
    segment_selection,
    single_attention,
)

EDITORS = {"global": GlobalDirection, "mapper": LatentMapper, "levels": LevelsMapper, "face": FaceDeltas}
STYLE_EDITORS = {
    "direction": lambda g, rngs: StyleDirection(style_widths(g), rngs, edited=edited_convolutions(g)),
    "channels": lambda g, rngs: ChannelSelection(style_widths(g), rngs),
}
REGION_TERMS = {"segment": ("area",), "attention": ("area", "tv"), None: ()}  # equations 6 and 7; no masks: no terms


@dataclass(frozen=True)
class Method:
    """One row of Table 1: names of its parts.

    `editor` is one of EDITORS or, for styles in place of codes, of STYLE_EDITORS; `region` "segment", "attention" or None
    (the whole image); `drawing` one of `step.draw`'s; `optimiser` one of `optimisers.OPTIMISERS`.  `full`: equation 2
    has the image with masks of one; `l2`: "sum" or "mean" of delta's squares, None without that term.  `layer`: where
    "once" blends, of the paper's 17 layers.
    """

    name: str
    editor: str
    region: str | None
    drawing: str
    optimiser: str
    full: bool
    l2: str | None
    layer: int | None = None

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the loss terms this method sums."""
        l2 = () if self.l2 is None else ("l2",)
        return ("clip", *l2, "identity", *REGION_TERMS[self.region])

    @property
    def needs_segments(self) -> bool:
        """Whether masks are made of a segment map."""
        return self.region == "segment"

    @property
    def per_face(self) -> bool:
        """Whether each face's delta is found for it alone, and an edit of other faces has to find theirs first."""
        return self.editor == "face"

    def masked_layers(self, generator: Generator) -> tuple[int, ...]:
        """Numbers of the layers that have a mask."""
        if self.region is None:
            return ()
        if self.drawing == "once":
            return (single_layer_of(generator, self.layer),)
        return tuple(range(1, edit_layers_of(generator) + 1))

    def edited_layers(self, generator: Generator) -> tuple[int, ...]:
        """Numbers of the layers that are edited: those with a mask; StyleMC's; else all."""
        if self.editor == "direction":
            return tuple(number for number, edited in enumerate(edited_convolutions(generator), start=1) if edited)
        return self.masked_layers(generator) or tuple(range(1, len(generator.layers) + 1))

    def edited_codes(self, generator: Generator) -> int:
        """How many codes, from the first, delta moves: all where the whole image is edited."""
        return max(self.masked_layers(generator), default=generator.n_latent)


def _table(*rows: tuple) -> dict[str, Method]:
    return {row[0]: Method(*row) for row in rows}


METHODS = _table(
    # name                    editor    region       drawing  optimiser      full   l2      layer
    ("segment_global",         "global", "segment",   "blend", "adam",        True,  "sum"),
    ("segment_mapper",         "mapper", "segment",   "blend", "adam",        True,  "sum"),
    ("attention_global",       "global", "attention", "blend", "adam",        True,  "sum"),
    ("attention_mapper",       "mapper", "attention", "blend", "adam",        True,  "sum"),
    ("styleclip_optimization", "face",   None,        "whole", "ramped_adam", False, "sum"),
    ("styleclip_mapper",       "levels", None,        "whole", "ranger",      False, "mean"),
    ("styleclip_global",       "channels", None,      "styles", "from_text",  False, None),
    ("stylemc",                "direction", None,     "styles", "stylemc",    False, None),
    ("feat_7",                 "mapper", "attention", "once",  "adam",        True,  "sum", 7),
    ("feat_13",                "mapper", "attention", "once",  "adam",        True,  "sum", 13),
)  # fmt: skip

# attention_mapper without what the paper argues for: the image with masks of one in equation 2; feedforwarded features
# in the unedited branch of equation 1 (section 3.3); ToRGB's original code.
ABLATIONS = _table(
    ("without_full",           "mapper", "attention", "blend",           "adam", False, "sum"),
    ("original_features",      "mapper", "attention", "blend_originals", "adam", True,  "sum"),
    ("edited_rgb",             "mapper", "attention", "blend_rgb",       "adam", True,  "sum"),
)  # fmt: skip

# What the authors publish of their settings; a domain's own for the method come before these.
AUTHORS = {
    "styleclip_optimization": {"steps": 300, "learning_rate": 0.1, "lambda_l2": 0.008, "lambda_id": 0.005},
    "styleclip_mapper": {"steps": 50_000, "batch_size": 2, "learning_rate": 0.5, "lambda_l2": 0.8, "lambda_id": 0.1},
    "styleclip_global": {"steps": 2, "strength": 4.1, "tau": 0.15},
    # 32 batches of four; identity at their "medium"; 50 is the change power of their README.
    "stylemc": {"steps": 32, "batch_size": 4, "truncation": 0.7, "learning_rate": 20.0, "lambda_id": 0.125, "strength": 50.0},
}


class Trainables(nnx.Module):
    """All that training an edit changes: the latent editor, and the region selector where the method has masks."""

    def __init__(self, method: Method, editor: nnx.Module, selector: SegmentSelection | AttentionNetwork | None):
        self.method = method
        self.editor = editor
        self.selector = selector


def get_method(name: str) -> Method:
    """The method or ablation of that name; ValueError lists the names."""
    known = METHODS | ABLATIONS
    if name not in known:
        raise ValueError(f"unknown method {name!r}; choose one of {', '.join(known)}")
    return known[name]


def make_trainables(method: Method, generator: Generator, segments: int | None, key: jax.Array, faces: int = 1) -> Trainables:
    """Fresh trainables of a method for a generator; `segments` is the segmenter's count (needed by segment selection).

    `faces` is how many faces get a delta of their own, where a method gives them one.  Raises ValueError where the
    method needs a segmenter and the domain has none.
    """
    rngs = nnx.Rngs(key)
    if method.editor in STYLE_EDITORS:
        editor = STYLE_EDITORS[method.editor](generator, rngs)
    else:
        editor = EDITORS[method.editor](EditorConfig(method.edited_codes(generator), generator.w_dim, faces), rngs)
    return Trainables(method, editor, _make_selector(method, generator, segments, rngs))


def _make_selector(
    method: Method, generator: Generator, segments: int | None, rngs: nnx.Rngs
) -> SegmentSelection | AttentionNetwork | None:
    layers = method.masked_layers(generator)
    if not layers:
        return None
    if method.drawing == "once":
        return single_attention(generator, layers[0], rngs)
    if not method.needs_segments:
        return attention_network(generator, len(layers), rngs)
    if segments is None:
        others = ", ".join(name for name, other in METHODS.items() if not other.needs_segments)
        raise ValueError(
            f"method {method.name} needs a segmenter and this domain has none; choose one of {others}, or make the "
            "domain with python -m converters.domain --segmenter_fit"
        )
    return segment_selection(generator, len(layers), segments, rngs)
