"""A one-step generator as a `torch.nn.Module`: noise and parameters in, physical fields out.

Knows no files and no ranks.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

from torch import Tensor, nn

from pidscale.generator.one_step import OneStepGenerator


class FieldModule(nn.Module):
    """What a generator makes of noise by one network call, behind its constraints and its head.

    `torch.export` takes it with any batch size: the program then needs torch alone. It stays on the generator's device and in
    its dtype.
    """

    def __init__(self, generator: OneStepGenerator) -> None:
        """Wrap a copy of a generator's network.

        Args:
            generator: The generator.
        """
        super().__init__()
        self.denoiser = deepcopy(generator.denoiser)
        self._generator = replace(generator, denoiser=self.denoiser)

    def forward(self, eps_BCYX: Tensor, params_BP: Tensor) -> Tensor:
        """Return physical fields.

        Args:
            eps_BCYX: Standard normal noise [B, C, Y, X].
            params_BP: Varying parameters [B, P].

        Returns:
            Fields [B, C, Y, X].
        """
        return self._generator.fields_of(eps_BCYX, params_BP)
