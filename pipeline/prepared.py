"""What of a guidance branch does not depend on the latents: computed before the first step, once per request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pipeline.components import Transformer
from pipeline.modulation import Modulation, modulations
from pipeline.transformer import Branch, conditioning_vector


@dataclass(frozen=True, slots=True)
class Prepared:
    """text [1,R,C]: the branch's, as it enters the refiner; pooled_text [1,D]: its mean where the mask is set;
    modulation: of the forward in each step.
    """

    branch: Branch
    text: Tensor
    pooled_text: Tensor
    modulation: Mapping[int, Modulation]


def prepare(
    transformer: Transformer, branches: Sequence[Branch], timesteps: Tensor, *, start_step: int
) -> list[Prepared]:
    """timesteps [S]: of all steps. The branches together, so that the layers of the modulation come only once."""
    steps = range(start_step, len(timesteps))
    keys = [(row, step) for row in range(len(branches)) for step in steps]
    vecs = [conditioning_vector(transformer, timesteps[step : step + 1], branches[row]) for row, step in keys]
    table = dict(zip(keys, modulations(transformer, vecs), strict=True))
    return [
        _prepared(transformer, branch, {step: table[row, step] for step in steps})
        for row, branch in enumerate(branches)
    ]


def refined_text(transformer: Transformer, prepared: Prepared, timestep: Tensor) -> Tensor:
    """[1,L,C]: the text rows that take part in joint attention.

    The refiner reads the mask position by position, padding rows included; afterwards only its sum counts, and cropping
    to it makes a mask in the joint attention unnecessary.
    """
    refiner, branch = transformer.context_embedder, prepared.branch
    vec = refiner.time_text_embed(timestep, prepared.pooled_text)
    return refiner.token_refiner(prepared.text, vec, branch.mask)[:, : branch.valid]


def _prepared(transformer: Transformer, branch: Branch, modulation: Mapping[int, Modulation]) -> Prepared:
    """The first lines of the refiner's `forward`."""
    weights = branch.mask.float()[..., None]
    mean = (branch.text * weights).sum(dim=1) / weights.sum(dim=1)
    text = transformer.context_embedder.proj_in(branch.text)
    return Prepared(branch, text, mean.to(branch.text.dtype), modulation)
