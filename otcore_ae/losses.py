"""Further loss terms, for `extra_terms`: each is a callable `Step` -> scalar.

SAE(encoder, decoder, prior, extra_terms={"laplacian": LaplacianPyramid()}, weights={"laplacian": 0.1})
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from otcore_ae.models.base import Step, Term

_KERNEL = (1.0, 4.0, 6.0, 4.0, 1.0)


@dataclass(frozen=True)
class LaplacianPyramid(Term):
    """Lap_1: sum over levels j of 2^(2j) |L_j(x) - L_j(x')|_1, as a mean over images.

    L_j are the levels of the Laplacian pyramid: an image less its blurred and halved copy brought back to
    size, and at the last level that copy. After Bojanowski et al., Optimizing the latent space of generative
    networks, 2017.

    Args:
        levels: of the pyramid (default 3); images must have at least 2^(levels - 1) pixels a side.
    """

    levels: int = 3

    def __call__(self, step: Step) -> Tensor:
        difference = step.images - step.reconstructions  # the pyramid is linear
        total = difference.new_zeros(())
        for level in range(self.levels):
            last = level + 1 == self.levels
            lower = difference if last else _halved(difference)
            band = difference if last else difference - _enlarged(lower, difference.shape[-2:])
            total = total + 4**level * band.abs().flatten(1).sum(1).mean()
            difference = lower
        return total


def _blur(images: Tensor) -> Tensor:
    line = torch.tensor(_KERNEL, dtype=images.dtype, device=images.device) / sum(_KERNEL)
    channels = images.shape[1]
    kernel = (line[:, None] * line[None, :]).expand(channels, 1, 5, 5)
    padded = nn.functional.pad(images, (2, 2, 2, 2), mode="replicate")
    return nn.functional.conv2d(padded, kernel, groups=channels)


def _halved(images: Tensor) -> Tensor:
    return _blur(images)[..., ::2, ::2]


def _enlarged(images: Tensor, size: torch.Size) -> Tensor:
    return _blur(nn.functional.interpolate(images, size=size, mode="nearest"))


@dataclass(frozen=True)
class Diversity(Term):
    """R_s = sum over pairs i != j of m_ij cos(y_i, y_j)^2 of the batch's latents, m = 1 where |cos| >= tau.

    The end-to-end Sinkhorn Autoencoder's regularisation (Deja et al., equation 5); its scale p is the term's
    weight. Its settings are unpublished.

    Args:
        tau: pairs that are less alike do not count (default 0.5).
    """

    tau: float = 0.5

    def __call__(self, step: Step) -> Tensor:
        unit = nn.functional.normalize(step.latents, dim=1)
        squares = (unit @ unit.T).square()
        alike = squares.detach() >= self.tau**2
        alike.fill_diagonal_(False)
        return torch.where(alike, squares, 0.0).sum()


@dataclass(frozen=True)
class LastLayerL2(Term):
    """Half the squared norm of the weights of the last linear or convolutional layer of a part of the model.

    Args:
        part: the model's attribute (default "encoder"), or a module in it, such as "decoder.network".
    """

    part: str = "encoder"

    def __call__(self, step: Step) -> Tensor:
        if step.model is None:
            raise ValueError("LastLayerL2 reads the model's weights, but the step has none; give it model=")
        return 0.5 * self._layer(step.model).weight.square().sum()

    def _layer(self, model: nn.Module) -> nn.Linear | nn.Conv2d | nn.ConvTranspose2d:
        try:
            part = model.get_submodule(self.part)
        except AttributeError as error:
            networks = ", ".join(name for name, child in model.named_children() if [*child.parameters()])
            raise ValueError(
                f"LastLayerL2: {type(model).__name__} has no part '{self.part}'; there are {networks}"
            ) from error
        layers = [m for m in part.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
        if not layers:
            raise ValueError(
                f"LastLayerL2: '{self.part}', a {type(part).__name__}, has no linear or convolutional layer"
            )
        return layers[-1]
