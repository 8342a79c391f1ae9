"""One device, torch alone (no Ray, no DeepSpeed): how near each part comes to what the device could do.

python -m benchmarks.speed.gpu [--device cuda] [--points 128 512] [--size small] [--repeats 10] [--quick]
    [--json benchmarks/results/gpu.json]

    teacher    a training step (forward, backward, AdamW): fields/s; share of the device's matrix products of that precision,
               as the largest of a few sizes reaches them here, by floating-point operations as torch counts them
    rollout    endpoints/s of `dpm2m`, 8 calls; share of what 8 bare forward passes would give
    residual   l2, dual and boundary of each equation, forward and backward: fields/s; share of the bandwidth of a copy, by
               the bytes of the fields read and of their gradient written once each
    student    milliseconds of a sample, one call

Medians over repeats after two to warm up, on a synchronised device. float32 has TF32 off.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report import Row, circumstances, finish, options, processor
from pidscale.diffusion.noise import EdmNoise
from pidscale.diffusion.objective import denoising_errors
from pidscale.diffusion.solvers import integrate, one_step
from pidscale.models import architecture, build_denoiser
from pidscale.ops.window import Window
from pidscale.pde import PDES, build_pde
from pidscale.pde.base import Pde
from pidscale.pde.parameters import draw_params
from pidscale.pde.residuals import residual_shares

CALLS = 8
CHANNELS = 2
WARM = 2  # turns before the clock starts
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def seconds(work: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Return the median of the seconds that some work takes on a synchronised device."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    found = []
    for turn in range(WARM + repeats):
        wait()
        began = time.perf_counter()
        work()
        wait()
        if turn >= WARM:
            found.append(time.perf_counter() - began)
    return statistics.median(found)


def peak_flops(device: torch.device, precision: str, repeats: int, sizes: tuple[int, ...]) -> float:
    """Return the FLOP/s of square matrix products, of the size that does best."""
    best = 0.0
    for size in sizes:
        a, b = (torch.randn(size, size, device=device, dtype=PRECISIONS[precision]) for _ in range(2))
        best = max(best, 2 * size**3 / seconds(lambda a=a, b=b: a @ b, device, repeats))  # type: ignore[misc]
    return best


def copy_bandwidth(device: torch.device, repeats: int, count: int) -> float:
    """Return the bytes a second that a copy reads and writes."""
    a = torch.randn(count, device=device)
    b = torch.empty_like(a)
    return 2 * a.nbytes / seconds(lambda: b.copy_(a), device, repeats)


def networks(
    kind: str, size: str, points: int, batch: int, device: torch.device, precision: str, repeats: int, peak: float
) -> list[Row]:
    """Return the rows of teacher, rollout and student of one network. peak: FLOP/s of the device in this precision."""
    model = build_denoiser(architecture(kind, size, CHANNELS), precision=precision).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    noise = EdmNoise()
    x, eps = (torch.randn(batch, CHANNELS, points, points, device=device) for _ in range(2))
    sigma = noise.training_level(torch.randn(batch, device=device))
    levels = noise.levels(CALLS)

    def step() -> None:
        denoising_errors(model, noise, x, sigma, eps).mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    with FlopCounterMode(display=False) as counter:
        step()
    training = seconds(step, device, repeats)
    with torch.no_grad():
        rollout = seconds(lambda: integrate(model, eps, levels, "dpm2m"), device, repeats)
        forward = seconds(lambda: model(x, sigma), device, repeats)
        student = seconds(lambda: one_step(model, eps, noise.sigma_max), device, repeats)
    found: list[Row] = [
        {
            "part": "teacher",
            "fields_per_second": batch / training,
            "share": counter.get_total_flops() / training / peak,
        },
        {"part": "rollout", "fields_per_second": batch / rollout, "share": CALLS * forward / rollout},
        {"part": "student", "fields_per_second": batch / student, "ms": 1e3 * student / batch},
    ]
    case = {"model": f"{kind} {size}", "points": points, "precision": precision, "batch": batch}
    return [case | row for row in found]


def residuals(points: int, batch: int, device: torch.device, repeats: int, bandwidth: float) -> list[Row]:
    """Return one row for each equation. bandwidth: bytes a second of a copy."""
    rows = []
    for name in sorted(PDES):
        pde = build_pde(name)
        window = Window(pde.grid(points))
        x = torch.rand(batch, len(pde.channels), *window.grid.shape, device=device).add_(0.5).requires_grad_()
        params = draw_params(pde, 0, "x", range(batch)).float().to(device)
        taken = seconds(partial(_residual_and_gradient, pde, window, x, params), device, repeats)
        row = {"model": name, "points": points, "precision": "fp32", "batch": batch, "part": "residual"}
        rows.append(row | {"fields_per_second": batch / taken, "share": 2 * x.nbytes / taken / bandwidth})
    return rows


def _residual_and_gradient(pde: Pde, window: Window, x: torch.Tensor, params: torch.Tensor) -> None:
    shares = residual_shares(pde, window, x, params)
    torch.autograd.grad(sum(s.sum() for s in shares.values() if s.requires_grad), x)  # type: ignore[arg-type]


def measure(device: torch.device, points: list[int], size: str, repeats: int, quick: bool = False) -> dict[str, Any]:
    """Return all rows, and what they are compared with. quick: small matrices, copies and batches."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    on_gpu = device.type == "cuda"
    sizes = (64,) if quick else (2048, 4096, 8192) if on_gpu else (1024, 2048)
    peaks = {precision: peak_flops(device, precision, repeats, sizes) for precision in PRECISIONS}
    bandwidth = copy_bandwidth(device, repeats, 2**12 if quick else 2**28 if on_gpu else 2**24)
    rows: list[Row] = []
    for n in points:
        batch = 2 if quick else max(1, min(64, (64 if on_gpu else 4) * 128**2 // n**2))
        for kind in ("unet", "fno"):
            for precision, peak in peaks.items():
                rows += networks(kind, size, n, batch, device, precision, repeats, peak)
        rows += residuals(n, batch, device, repeats, bandwidth)
    meta = circumstances(
        device=torch.cuda.get_device_name(device) if on_gpu else processor(),
        threads=torch.get_num_threads(),
        peak_flops=peaks,
        copy_bytes_per_second=bandwidth,
        repeats=repeats,
    )
    return {"rows": rows, "meta": meta}


def main() -> None:
    """Measure and write the rows."""
    parser = options(__doc__, "gpu")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--points", nargs="+", type=int, default=[128, 512])
    parser.add_argument("--size", default="small")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="the least of everything, to see that it runs")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.quick:
        result = measure(device, [16], "tiny", repeats=1, quick=True)
    else:
        result = measure(device, arguments.points, arguments.size, arguments.repeats)
    finish(arguments.json, result, "gpu")


if __name__ == "__main__":
    main()
