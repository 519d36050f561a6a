"""Every method as a choice of parts: CORAL's four, and the baselines of the paper's Table 1 as their authors run them.

A row of the table below names functions and classes; to add a method, add a row (`docs/extending.md`).

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
- styleclip_global: what a channel does is found on fewer faces where the domain says so (`direction_faces`); the texts
  are those of `global_directions.templates`.  One step computes the edit, a second one logs what it does.  tau is their
  beta: channels of lower relevance are left alone, and 0 picks it by their rule.
- stylemc: one batch a step, as its authors count; their rate and identity weight for a loss that is a mean (`stylemc`).
  They draw 1024-px faces at 256 px only, which is `loss_resolution=256` here, and clip images before CLIP reads them.
- feat_7, feat_13: FEAT* as the paper describes it (no code of FEAT is published), with CORAL's mapper, mask head and
  losses (section 4.2: "equivalent settings"); 7 and 13 count the paper's layers and are scaled to other generators.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
from flax import nnx

from coral_jax.baselines.feat import LastAttention, blend_once, layers_up_to
from coral_jax.baselines.ranger import RANGER
from coral_jax.baselines.styleclip import RAMPED_ADAM, FaceDeltas, LevelsMapper, all_layers, draw_whole
from coral_jax.baselines.stylemc import STYLEMC, layers_of_8_to_64
from coral_jax.baselines.stylespace import FROM_TEXT, ChannelSelection, StyleDirection, draw_styled
from coral_jax.blend import Blend, blend, edited_layers
from coral_jax.editors import Editor, GlobalDirection, LatentMapper
from coral_jax.losses import EQUATION_6, EQUATION_7, MAPPER, OPTIMIZATION, STYLE_SPACE, WITHOUT_FULL, Term
from coral_jax.models.generator import Generator
from coral_jax.optimisers import ADAM, Optimiser, Trainables
from coral_jax.regions import AttentionNetwork, SegmentSelection


@dataclass(frozen=True)
class Method:
    """One row of Table 1.

    `layers`: numbers of the layers of a generator that it edits; `region`: class of its region selector, None where the
    whole image is edited; `editor`: class of its latent editor; `drawing`: how it draws an edit, called as `blend` is;
    `optimiser`: how it learns; `terms`: the loss terms that it sums.
    """

    name: str
    layers: Callable[[Generator], tuple[int, ...]]
    region: type[SegmentSelection] | type[AttentionNetwork] | None
    editor: type[Editor]
    drawing: Callable[..., Blend]
    optimiser: Optimiser
    terms: tuple[Term, ...]

    @property
    def full(self) -> bool:
        """Whether a loss term reads the image with masks of one (equation 2)."""
        return any(term.reads_full for term in self.terms)

    @property
    def needs_segments(self) -> bool:
        """Whether masks are made of a segment map."""
        return self.region is not None and self.region.needs_segments

    @property
    def per_face(self) -> bool:
        """Whether each face's delta is found for it alone, and an edit of other faces has to find theirs first."""
        return self.editor.per_face

    @property
    def seeded(self) -> bool:
        """Whether another seed gives another edit: not where nothing is drawn at random."""
        return not (self.per_face or self.editor.from_text)


def _table(*rows: tuple) -> dict[str, Method]:
    return {row[0]: Method(*row) for row in rows}


_layer_7, _layer_13 = (partial(layers_up_to, layer=layer) for layer in (7, 13))
_blend_originals, _blend_rgb = partial(blend, original_features=True), partial(blend, edit_rgb=True)

# fmt: off
METHODS = _table(
    # name                    which layers        where             what              drawn by     learns by    sums
    ("segment_global",         edited_layers, SegmentSelection, GlobalDirection,  blend,       ADAM,        EQUATION_6),
    ("segment_mapper",         edited_layers, SegmentSelection, LatentMapper,     blend,       ADAM,        EQUATION_6),
    ("attention_global",       edited_layers, AttentionNetwork, GlobalDirection,  blend,       ADAM,        EQUATION_7),
    ("attention_mapper",       edited_layers, AttentionNetwork, LatentMapper,     blend,       ADAM,        EQUATION_7),
    ("styleclip_optimization", all_layers,         None,             FaceDeltas,       draw_whole,  RAMPED_ADAM, OPTIMIZATION),
    ("styleclip_mapper",       all_layers,         None,             LevelsMapper,     draw_whole,  RANGER,      MAPPER),
    ("styleclip_global",       all_layers,         None,             ChannelSelection, draw_styled, FROM_TEXT,   STYLE_SPACE),
    ("stylemc",                layers_of_8_to_64,  None,             StyleDirection,   draw_styled, STYLEMC,     STYLE_SPACE),
    ("feat_7",                 _layer_7,           LastAttention,    LatentMapper,     blend_once,  ADAM,        EQUATION_7),
    ("feat_13",                _layer_13,          LastAttention,    LatentMapper,     blend_once,  ADAM,        EQUATION_7),
)

# attention_mapper without what the paper argues for: the image with masks of one in equation 2; feedforwarded features
# in the unedited branch of equation 1 (section 3.3); ToRGB's original code.
ABLATIONS = _table(
    ("without_full",       edited_layers, AttentionNetwork, LatentMapper, blend,            ADAM, WITHOUT_FULL),
    ("original_features",  edited_layers, AttentionNetwork, LatentMapper, _blend_originals, ADAM, EQUATION_7),
    ("edited_rgb",         edited_layers, AttentionNetwork, LatentMapper, _blend_rgb,       ADAM, EQUATION_7),
)
# fmt: on

# What the authors publish of their settings; a domain's own for the method come before these.
AUTHORS = {
    "styleclip_optimization": {"steps": 300, "learning_rate": 0.1, "lambda_l2": 0.008, "lambda_id": 0.005},
    "styleclip_mapper": {"steps": 50_000, "batch_size": 2, "learning_rate": 0.5, "lambda_l2": 0.8, "lambda_id": 0.1},
    "styleclip_global": {"steps": 2, "strength": 4.1, "tau": 0.15},
    # 32 batches of four; identity at their "medium"; 50 is the change power of their README.
    "stylemc": {"steps": 32, "batch_size": 4, "truncation": 0.7, "learning_rate": 20.0, "lambda_id": 0.125, "strength": 50.0},
}


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
    if method.needs_segments and segments is None:
        others = ", ".join(name for name, other in METHODS.items() if not other.needs_segments)
        raise ValueError(
            f"method {method.name} needs a segmenter and this domain has none; choose one of {others}, or make the "
            "domain with python -m converters.domain --segmenter_fit"
        )
    layers, rngs = method.layers(generator), nnx.Rngs(key)
    editor = method.editor(generator, layers, rngs, faces=faces)
    return Trainables(editor, None if method.region is None else method.region(generator, layers, rngs, segments=segments))
