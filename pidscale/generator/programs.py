"""A student as a program of its own: a file for `torch.export`, or one in ONNX for runtimes without torch. Knows no ranks."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pidscale.config import UserError
from pidscale.files import write_atomic
from pidscale.generator.module import FieldModule
from pidscale.generator.one_step import OneStepGenerator
from pidscale.models.real import in_real_numbers

ENDINGS = (".onnx", ".pt2")
BATCH = "batch"  # the name of the dynamic axis
NOISE, PARAMS, FIELDS = "noise", "params", "fields"  # names of input and output


class _WithoutParams(nn.Module):
    """A module of noise alone, for an equation whose parameters are the same in all samples."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, eps_BCYX: Tensor) -> Tensor:
        fields: Tensor = self.module(eps_BCYX, eps_BCYX.new_zeros(eps_BCYX.shape[0], 0))
        return fields


class _Watch(TorchDispatchMode):
    """Note whether an operation makes complex numbers."""

    complex = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.complex |= any(isinstance(value, Tensor) and value.is_complex() for value in tree_leaves(made))
        return made


def write_program(generator: OneStepGenerator, path: Path) -> None:
    """Write a generator as a program of noise [B, C, Y, X] and, where parameters differ from sample to sample, params [B, P].

    Its output are physical fields [B, C, Y, X] behind constraints and head, in float32, for any batch size B. Noise is
    standard normal. A file in ONNX has the card of the generator as its metadata `card`.

    Args:
        generator: The generator.
        path: The file, whose ending says which form: `.onnx` or `.pt2`.

    Raises:
        UserError: When the ending is another, or ONNX cannot hold the program, or its packages are missing.
    """
    if path.suffix not in ENDINGS:
        raise UserError(f"{path}: expected a name that ends in {' or '.join(ENDINGS)}")
    example = [generator.eps(range(2), seed=0), generator.params(range(2), seed=0)]
    module: nn.Module = FieldModule(generator.with_precision("fp32"))
    in_onnx = path.suffix == ".onnx"
    if in_onnx and not all(map(find_spec, ("onnx", "onnxscript"))):
        raise UserError(f"{path}: ONNX needs onnx and onnxscript; pip install 'pidscale[onnx]'")
    if in_onnx:
        in_real_numbers(module, *example)
        with _Watch() as seen, torch.no_grad():
            module(*example)
        if seen.complex:
            raise UserError(
                f"{path}: the solver steps of {generator.pde.name} need complex numbers, which ONNX does not have; export "
                "the network alone with --head 0, or write a .pt2 file"
            )
    if not generator.pde.varying:
        module = _WithoutParams(module)
        example = example[:1]
    module.eval()
    batch = torch.export.Dim(BATCH)
    with _quiet():
        program = torch.export.export(module, tuple(example), dynamic_shapes=tuple({0: batch} for _ in example))
        if in_onnx:
            write_atomic(path, _onnx(generator, program, [NOISE, PARAMS][: len(example)]))
            return
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "program.pt2"
        torch.export.save(program, made)
        write_atomic(path, made.read_bytes())


def _onnx(generator: OneStepGenerator, program: torch.export.ExportedProgram, names: list[str]) -> bytes:
    """Return a program in ONNX."""
    made = torch.onnx.export(program, (), dynamo=True, input_names=names, output_names=[FIELDS], verbose=False)
    assert made is not None
    model = made.model_proto
    entry = model.metadata_props.add()
    entry.key = "card"
    entry.value = json.dumps(generator.card.to_plain())
    written: bytes = model.SerializeToString()
    return written


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from naming packages that are not needed, and torch from warning itself of its own functions."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(before)
