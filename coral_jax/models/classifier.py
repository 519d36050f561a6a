"""A small convolutional classifier with several questions to one image; used for evaluation, never to train an edit."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx


@dataclass(frozen=True)
class ClassifierConfig:
    """Widths of the stride-2 convolutions, and the questions as (name, number of answers)."""

    widths: tuple[int, ...]
    questions: tuple[tuple[str, int], ...]


class Classifier(nnx.Module):
    """Stride-2 3x3 convolutions with ReLU and group normalisation, one linear head over the last features."""

    def __init__(self, config: ClassifierConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        inputs = (3, *config.widths[:-1])
        self.convs = nnx.List(
            [nnx.Conv(i, o, (3, 3), strides=2, rngs=rngs) for i, o in zip(inputs, config.widths, strict=True)]
        )
        self.norms = nnx.List([nnx.GroupNorm(o, num_groups=8, rngs=rngs) for o in config.widths])
        self.head = nnx.Linear(16 * config.widths[-1], sum(n for _, n in config.questions), rngs=rngs)

    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        """Images [B, S, S, 3] in [-1, 1] -> logits [B, answers] for every question; S / 2^convolutions must be 4."""
        x = images
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.relu(norm(conv(x)))
        logits = self.head(x.reshape(x.shape[0], -1))
        ends = [sum(n for _, n in self.config.questions[: i + 1]) for i in range(len(self.config.questions))]
        parts = jnp.split(logits, ends[:-1], axis=-1)
        return {name: part for (name, _), part in zip(self.config.questions, parts, strict=True)}
