"""Methods of the paper's Table 1, each a choice of a region selector and a latent editor."""

from dataclasses import dataclass

import jax
from flax import nnx

from coral_jax.blend import edit_layers_of
from coral_jax.editors import EditorConfig, GlobalDirection, LatentMapper
from coral_jax.models.generator import Generator
from coral_jax.regions import AttentionNetwork, SegmentSelection, attention_network, segment_selection

EDITORS = {"global": GlobalDirection, "mapper": LatentMapper}
REGIONS = ("segment", "attention")
TERMS = {  # loss terms of each region selector: equations 6 and 7
    "segment": ("clip", "l2", "identity", "area"),
    "attention": ("clip", "l2", "identity", "area", "tv"),
}


@dataclass(frozen=True)
class Method:
    """One row of Table 1: `region` is one of REGIONS, `editor` one of EDITORS."""

    name: str
    region: str
    editor: str

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the loss terms this method sums."""
        return TERMS[self.region]


METHODS = {
    f"{region}_{editor}": Method(f"{region}_{editor}", region, editor) for region in REGIONS for editor in EDITORS
}


class Trainables(nnx.Module):
    """All that training an edit changes: the latent editor and the region selector."""

    def __init__(self, editor: GlobalDirection | LatentMapper, selector: SegmentSelection | AttentionNetwork):
        self.editor = editor
        self.selector = selector


def get_method(name: str) -> Method:
    """The method of that name; ValueError lists the names."""
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def make_trainables(method: Method, generator: Generator, segments: int | None, key: jax.Array) -> Trainables:
    """Fresh trainables of a method for a generator; `segments` is the segmenter's count (needed by segment selection).

    Raises ValueError where the method needs a segmenter and the domain has none.
    """
    rngs = nnx.Rngs(key)
    edit_layers = edit_layers_of(generator)
    editor = EDITORS[method.editor](EditorConfig(edit_layers, generator.w_dim), rngs)
    if method.region == "attention":
        return Trainables(editor, attention_network(generator, edit_layers, rngs))
    if segments is None:
        others = ", ".join(name for name, other in METHODS.items() if other.region != "segment")
        raise ValueError(
            f"method {method.name} needs a segmenter and this domain has none; choose one of {others}, or make the "
            "domain with python -m converters.domain --segmenter_fit"
        )
    return Trainables(editor, segment_selection(generator, edit_layers, segments, rngs))
