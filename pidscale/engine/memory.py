"""What a worker's memory has to hold, counted before the run starts, what it may hold, and what to do where it does not fit.

Activations are measured, not estimated: the network itself runs forward and backward on tensors that have shapes and no
bytes. Knows no Ray, exchanges nothing and starts nothing: one process can ask for the workers of any cluster.
"""

from __future__ import annotations

import errno
import os
import re
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pidscale.config import Settings, TrainSettings
from pidscale.engine.schedule import micro_plan
from pidscale.models import build_denoiser, row_unit
from pidscale.models.layers import Attention
from pidscale.parallel.mesh import Mesh
from pidscale.parallel.split import Cut

_FLOAT = 4  # bytes
PASSES = {"piddm": 1, "pid": 3, "dm": 1}  # of a sample through the student that one micro-step keeps, by objective


class Alive(TorchDispatchMode):
    """Within it, `now` is the bytes of all tensors that were made in it and still live, `most` the most there ever were.

    besides: tensors from outside that operations may hand back; they are not counted.
    """

    def __init__(self, besides: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.besides = {tensor.untyped_storage()._cdata for tensor in besides}
        self.known: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.device.type != "meta":
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.besides or key in self.known:
            return

        def gone(_: Any) -> None:
            del self.known[key]
            self.now -= size

        self.known[key] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


def _pass(
    description: Mapping[str, Any], shape: tuple[int, ...], rows: int, recompute: bool, precision: str, trains: bool
) -> int:
    """The most bytes alive in one pass over a batch [B, C, y, X], beyond weights, buffers and gradients of weights.

    rows: those of the whole field, whose keys and values every rank gathers where the network attends.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    gathered = [0]

    def attended(_: nn.Module, __: Any, out: Tensor) -> None:
        elsewhere = (rows - shape[-2]) / shape[-2]
        gathered.append(round(2 * out.numel() * out.element_size() * elsewhere))

    with FakeTensorMode(), torch.set_grad_enabled(trains):
        model = build_denoiser(description, precision=precision, recompute=recompute)
        gradients = [torch.zeros_like(p) for p in model.parameters()]
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        for module in model.modules():
            if isinstance(module, Attention):
                module.register_forward_hook(attended)
        x_BCYX, sigma_B = torch.ones(shape), torch.ones(shape[0])
        told_BP = torch.ones(shape[0], description["conditions"]) if description["conditions"] else None
        with Alive([*model.parameters(), *model.buffers(), *gradients]) as alive:
            out = model(x_BCYX, sigma_B, told_BP)
            if trains:
                out.square().sum().backward()
    return alive.most + (sum(gathered) if trains and not recompute else max(gathered))


def activation_bytes(
    description: Mapping[str, Any],
    shape: tuple[int, int],
    micro_batch: int,
    rows: int,
    recompute: bool = False,
    precision: str = "fp32",
    trains: bool = True,
) -> int:
    """The most bytes that one micro-step holds at once, beyond weights and their gradients, on a rank with `rows` rows.

    What the forward pass keeps for the backward pass and what this then makes for a while, a recomputed stage included; the
    keys and values that attention gathers of a whole coarse field too, but not the borders that neighbours exchange, nor
    what the backend of a device needs within an operation. description: as `architecture` gives it. shape: (Y, X) of the
    whole field; rows: a multiple of the network's `multiple`. trains False: a forward pass alone, as sampling does it.
    Takes seconds at most and no memory, whatever the size. Raises ValueError for rows that the field has not.
    """
    height, width = shape
    if not 0 < rows <= height:
        raise ValueError(f"{rows} rows of a field of {height}")
    # what modes cost is the same on every rank, however few its rows: a tile is never so low that it would lose some
    tile = max(rows, min(height, 2 * int(description.get("modes", 0))))

    def of(batch: int) -> int:
        return _pass(description, (batch, description["channels"], tile, width), height, recompute, precision, trains)

    # without bytes a batch of one takes strides that real tensors do not take, and attention then another kernel
    return of(micro_batch) if micro_batch > 1 else 2 * of(2) - of(3)


def state_bytes(parameters: int, workers: int, stage: int) -> tuple[int, int, int]:
    """Bytes of weights, gradients and optimiser on one worker, in float32, under a ZeRO stage.

    Stage 1 splits the optimiser, 2 gradients too, 3 weights too. The optimiser is two moments of Adam, from stage 1 on also
    the copy of the weights that DeepSpeed updates. Its buckets (`reduce_bucket_size`) and what stage 3 gathers for a while
    come on top.
    """
    one = _FLOAT * parameters
    split = -(-one // workers)
    return (
        split if stage > 2 else one,
        split if stage > 1 else one,
        3 * split if stage > 0 else 2 * one,
    )


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the worker with most rows.

    weights, gradients, optimiser, ema: of each of the `networks` in training. activations: of one
    micro-step of `micro_batch` samples on a tile of (rows, columns) points; students take turns. sampling: what samples for
    scores and pictures need instead. frozen: a frozen teacher; endpoints: its ring. advice: what would make it less.
    """

    weights: int
    gradients: int
    optimiser: int
    ema: int
    activations: int
    sampling: int = 0
    frozen: int = 0
    endpoints: int = 0
    networks: int = 1
    micro_batch: int = 1
    tile: tuple[int, int] = (0, 0)
    advice: str = ""

    @property
    def total(self) -> int:
        """All of it at its worst moment."""
        state = self.networks * (self.weights + self.gradients + self.optimiser + self.ema)
        return state + self.frozen + self.endpoints + max(self.activations, self.sampling)


def memory_plan(
    settings: Settings, description: Mapping[str, Any], shape: tuple[int, int], phase: str, parameters: int
) -> MemoryPlan:
    """What the worker with most rows needs in a phase, `teacher` or `distill`. ValueError where the grid does not fit."""
    model, cluster, distils = settings.model, settings.cluster, phase == "distill"
    loop: TrainSettings = getattr(settings, phase)
    data = cluster.workers // cluster.space
    micro = micro_plan(loop.global_batch, loop.micro_batch, Mesh(0, data)).micro
    rows = max(Cut.even(shape[0], cluster.space, row_unit(description)).sizes)
    networks = 2 ** (settings.distill.twin + (settings.distill.objective == "dm")) if distils else 1  # critics too
    sampled = (
        settings.distill.chunk if distils else min(loop.micro_batch, -(-settings.teacher.evaluate_samples // data))
    )
    field = _FLOAT * description["channels"] * rows * shape[1]
    weights, gradients, optimiser = state_bytes(parameters, cluster.workers, cluster.zero_stage)
    passes = PASSES[settings.distill.objective] if distils else 1
    steps = activation_bytes(description, shape, passes * micro, rows, model.recompute, model.precision)
    forward = activation_bytes(description, shape, sampled, rows, False, model.precision, trains=False)
    sampling = forward + networks * _FLOAT * parameters  # from plain copies with averaged weights
    return MemoryPlan(
        weights,
        gradients,
        optimiser,
        ema=-(-_FLOAT * parameters // cluster.workers),
        activations=steps,
        sampling=sampling,
        frozen=_FLOAT * parameters if distils else 0,
        endpoints=settings.distill.ring * -(-loop.global_batch // data) * field if distils else 0,
        networks=networks,
        micro_batch=micro,
        tile=(rows, shape[1]),
        advice=advice(settings, phase, steps >= sampling, sampling > steps),
    )


def advice(settings: Settings, phase: str, steps: bool = True, samples: bool = True) -> str:
    """Which settings would make a phase need less memory, in its steps or where it samples, as the end of a sentence."""
    micro, cluster, ways = getattr(settings, phase).micro_batch, settings.cluster, []
    if (steps or phase == "teacher") and micro > 1:
        ways += [f"{phase}.micro_batch below {micro}"]
    if steps and not settings.model.recompute:
        ways += ["model.recompute=true"]
    if samples and phase == "distill" and settings.distill.chunk > 1:
        ways += [f"distill.chunk below {settings.distill.chunk}"]
    ways += [f"cluster.zero_stage={cluster.zero_stage + 1}"] if cluster.zero_stage < 3 and cluster.workers > 1 else []
    return f"try {''.join(way + ', ' for way in ways)}or cluster.space above {cluster.space}".replace("try or", "try")


def size_text(count: float) -> str:
    """Bytes for a reader: 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _address_space() -> int | None:
    """What RLIMIT_AS leaves of the address space, beyond what is mapped already."""
    try:
        import resource

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError):  # not Linux
        return None
    return None if soft == resource.RLIM_INFINITY else max(0, soft - mapped)


def group_limit(root: Path = Path("/")) -> int | None:
    """The least limit of this process's control groups, of version 2 or 1, and of those above them. root: for tests."""
    found = []
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            top, name = ("memory", "memory.limit_in_bytes") if kinds else ("", "memory.max")
            inside = Path(path.lstrip("/"))  # a container may see its own group as the top, whatever its path says
            for group in (inside, *inside.parents):
                with suppress(OSError, ValueError):  # no such file, or `max`
                    found.append(int((root / "sys/fs/cgroup" / top / group / name).read_text()))
    return min(found, default=None)


def _physical() -> int | None:
    """Memory that could be had without swapping; where the system does not say so, all there is."""
    with suppress(OSError):
        found = re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def memory_limit(processes: int = 1) -> int | None:
    """Bytes that this process may use on the CPU, None where nothing says so. processes: workers that share this host."""
    shared = [limit // processes for limit in (group_limit(), _physical()) if limit is not None]
    own = _address_space()
    return min(shared if own is None else [*shared, own], default=None)


def device_limit(device: torch.device, processes: int = 1) -> int | None:
    """Bytes that this process may use where it computes: a whole GPU, or its part of the host."""
    return torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else memory_limit(processes)


_SIGNS = (
    "can't allocate memory",
    "Cannot allocate memory",
    "not enough memory",
    "out of memory",
    "std::bad_alloc",
    "could not create a primitive",  # so oneDNN, of a layer that it has room for at other times
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory that was asked for was not there: of a GPU, torch's on the CPU, Python's own, the system's or Ray's."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
