"""A network that says where a search starts: from what is known of a field to the noise that the student makes it from.

It belongs to one student and lies in a folder of that student's (`start/`), in the same two files as a generator. Its input
are the known values in units of the model, where they are known, the known parameters and which those are. It is learnt from
the student's own samples (learn_start.py). Readings between grid points are not among its input. Knows no ranks.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from pidscale.config import UserError, from_plain
from pidscale.files import write_atomic
from pidscale.generator.artifact import VERSION, WEIGHTS, read_plain, read_weights, write_plain
from pidscale.generator.card import WeightsFile
from pidscale.generator.one_step import OneStepGenerator
from pidscale.generator.section import REMEDY
from pidscale.generator.tasks.energy import PosedTask, known_params
from pidscale.generator.tasks.observations import Observation
from pidscale.models import NETWORKS, check_description
from pidscale.pde.parameters import condition
from pidscale.precision import float32_island

FOLDER = "start"  # in the folder of its student


@dataclass(frozen=True)
class StartCard:
    """What the folder of a start network says of it.

    Attributes:
        student: SHA-256 of the student's weights.
        architecture: Description of the network.
        steps: Training steps.
        seconds: Training time.
        error: Relative distance of its fields to the student's own, root mean square over samples and points that are not
            known; 1 is no better than the mean.
        weights: The file of weights.
    """

    student: str
    architecture: dict[str, Any]
    steps: int
    seconds: float
    error: float
    weights: WeightsFile | None = None


@dataclass(frozen=True)
class StartNetwork:
    """A start network, on the device of its student.

    Attributes:
        card: Its card.
        network: The raw network, on inputs of twice as many channels as a field has.
    """

    card: StartCard
    network: nn.Module

    @torch.no_grad()
    def vectors(self, generator: OneStepGenerator, seen: Observation, params: Any) -> Tensor:
        """Return a vector for each observation: noise, and the middle of the range of every parameter that is not known.

        A parameter that is unknown or out of its range raises a UserError.

        Args:
            generator: The student.
            seen: Known values of N fields.
            params: Varying parameters that are known, by name.

        Returns:
            Vectors [N, D] as in energy.py.
        """
        on = seen.on(generator.device)
        given = known_params(generator.pde, len(seen), params)
        eps = guess(generator, self.network, generator.normaliser.encode(on.values_NCYX), on.known_NCYX, given)
        return torch.cat([eps.flatten(1), eps.new_zeros(len(seen), len(generator.pde.varying))], dim=1)

    @torch.no_grad()
    def draws(
        self, generator: OneStepGenerator, task: PosedTask, zeta_bD: Tensor, owners_b: Tensor, xi_bK: Tensor
    ) -> Tensor:
        """Return approximate draws of the posterior, to start from: z = zeta + G(x' + sigma xi) - G(M d(zeta)).

        For a linear student and a G that is the mean of the noise given the known values, these are exact (Matheron's rule;
        Journel and Huijbregts, Mining geostatistics, 1978). One call of the student and two of the start network.

        Args:
            generator: The student.
            task: The task, of N observations.
            zeta_bD: Draws of the prior.
            owners_b: Number of the observation of each draw.
            xi_bK: Noise of the known values, in units of sigma, as in `PosedTask.misfit`.

        Returns:
            Vectors [b, D].
        """
        seen = task.observation
        encode = generator.normaliser.encode
        known, params = seen.known_NCYX[owners_b], task.params_NP[owners_b]
        noise = xi_bK[:, : task.values[0]].unflatten(1, task.shape) * seen.sigma_NC[owners_b, :, None, None]
        prior, _ = task.fields(zeta_bD, owners_b)
        wanted = guess(generator, self.network, encode(seen.values_NCYX[owners_b] + noise), known, params)
        before = guess(generator, self.network, encode(prior), known, params)
        moved = zeta_bD.clone()
        moved[:, : task.values[0]] += (wanted - before).flatten(1)
        return moved


def description(generator: OneStepGenerator) -> dict[str, Any]:
    """Return the architecture of a start network: that of the student, on other inputs."""
    own = {key: value for key, value in generator.card.architecture.items() if key != "prediction"}
    return own | {"channels": 2 * len(generator.channels), "conditions": 2 * len(generator.pde.varying)}


def build_start(architecture: dict[str, Any]) -> nn.Module:
    """Build a raw network. A description that is none raises a ValueError."""
    check_description(architecture)
    own = {key: value for key, value in architecture.items() if key != "kind"}
    return NETWORKS[architecture["kind"]](**own)


def guess(
    generator: OneStepGenerator, network: nn.Module, x_BCYX: Tensor, known_BCYX: Tensor, params_BP: Tensor
) -> Tensor:
    """Return the noise that a start network names, with gradients to its weights.

    Args:
        generator: The student.
        network: The raw network.
        x_BCYX: Known values in units of the model; ignored where they are not known.
        known_BCYX: Where they are known, bool.
        params_BP: Varying parameters in their own units; NaN where one is not known.

    Returns:
        Noise [B, C, Y, X].
    """
    seen = torch.cat([torch.where(known_BCYX, x_BCYX.float(), 0.0), known_BCYX.float()], dim=1)
    scaled = condition(generator.pde, params_BP.double().cpu()).to(seen)
    flags = torch.cat([scaled.nan_to_num(), (~scaled.isnan()).to(seen)], dim=1)
    with float32_island(seen.device):
        made: Tensor = network(seen, seen.new_zeros(len(seen)), flags if flags.shape[1] else None)
    return made[:, : x_BCYX.shape[1]]


def write_start(folder: Path, start: StartNetwork) -> None:
    """Write a start network into the folder of its student. A file that cannot be written raises an OSError."""
    data = save({name: tensor.cpu().contiguous() for name, tensor in start.network.state_dict().items()})
    own = folder / FOLDER
    own.mkdir(exist_ok=True)
    write_atomic(own / WEIGHTS, data)
    entry = WeightsFile(len(data), hashlib.sha256(data).hexdigest())
    plain = {**asdict(start.card), "version": VERSION, "kind": "start", "weights": asdict(entry)}
    write_plain(own, plain)


def read_start(folder: Path, generator: OneStepGenerator) -> StartNetwork | None:
    """Read the start network in the folder of a student. One of an earlier student is left out with a warning.

    Args:
        folder: Folder of the student.
        generator: The student.

    Returns:
        The network, on the student's device; None if it is another student's.

    Raises:
        UserError: When a file is missing, damaged or altered.
    """
    own = folder / FOLDER
    plain = read_plain(own)
    kind = plain.pop("kind", None)
    if kind != "start":
        raise UserError(f"{own}: holds a {kind!r}, expected a start network; learn it again, or remove the folder")
    card = from_plain(
        StartCard, {key: value for key, value in plain.items() if key not in ("version", "sha256")}, str(own)
    )
    if card.student != generator.card.weights_sha256:
        warnings.warn(f"{own}: made for another student, and left out; learn it again", stacklevel=4)
        return None
    wanted = description(generator)
    if any(card.architecture.get(key) != wanted[key] for key in ("channels", "conditions")):
        raise UserError(f"{own}: card and weights do not fit together (not for the channels of {folder}); {REMEDY}")
    weights = read_weights(own, card)
    try:
        with torch.device("meta"):
            network = build_start(card.architecture)
        network.load_state_dict({name: one.float() for name, one in weights.items()}, assign=True)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])[:160]
        raise UserError(f"{own}: card and weights do not fit together ({reason}); {REMEDY}") from None
    return StartNetwork(card, network.to(generator.device).eval().requires_grad_(False))
