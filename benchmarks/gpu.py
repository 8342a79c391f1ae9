"""One device, torch alone (no Ray, no DeepSpeed): how near each part comes to what the device could do.

python -m benchmarks.gpu [--device cuda] [--points 128 512] [--size small] [--repeats 10] [--json benchmarks/results/gpu.json]
    [--page docs/gpu.md]

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
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report import finish, options, processor, table
from pidscale.diffusion.noise import EdmNoise
from pidscale.diffusion.objective import denoising_errors
from pidscale.diffusion.solvers import integrate, one_step
from pidscale.models import architecture, build_denoiser
from pidscale.ops.window import Window
from pidscale.pde import PDES, build_pde
from pidscale.pde.parameters import draw_params
from pidscale.pde.residuals import residual_shares
from pidscale.run.phases import versions

CALLS, CHANNELS = 8, 2
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def seconds(work: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median of the seconds that some work takes."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    found = []
    for turn in range(repeats + 2):
        wait()
        began = time.perf_counter()
        work()
        wait()
        if turn > 1:
            found.append(time.perf_counter() - began)
    return statistics.median(found)


def peak_flops(device: torch.device, precision: str, repeats: int, sizes: tuple[int, ...]) -> float:
    """FLOP/s of square matrix products, of the size that does best."""
    best = 0.0
    for size in sizes:
        a, b = (torch.randn(size, size, device=device, dtype=PRECISIONS[precision]) for _ in range(2))
        best = max(best, 2 * size**3 / seconds(lambda a=a, b=b: a @ b, device, repeats))  # type: ignore[misc]
    return best


def copy_bandwidth(device: torch.device, repeats: int, count: int) -> float:
    """Bytes a second that a copy reads and writes."""
    a = torch.randn(count, device=device)
    b = torch.empty_like(a)
    return 2 * a.nbytes / seconds(lambda: b.copy_(a), device, repeats)


def networks(
    kind: str, size: str, points: int, batch: int, device: torch.device, precision: str, repeats: int, peak: float
) -> list[dict[str, Any]]:
    """Rows of teacher, rollout and student of one network."""
    model = build_denoiser(architecture(kind, size, CHANNELS), precision=precision).to(device)
    optimiser, noise = torch.optim.AdamW(model.parameters(), lr=1e-4), EdmNoise()
    x, eps = (torch.randn(batch, CHANNELS, points, points, device=device) for _ in range(2))
    sigma = noise.training_level(torch.randn(batch, device=device))

    def step() -> None:
        denoising_errors(model, noise, x, sigma, eps).mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    with FlopCounterMode(display=False) as counter:
        step()
    flops, levels = counter.get_total_flops(), noise.levels(CALLS)
    taken = {"teacher": seconds(step, device, repeats)}
    with torch.no_grad():
        taken["rollout"] = seconds(lambda: integrate(model, eps, levels, "dpm2m"), device, repeats)
        taken["forward"] = seconds(lambda: model(x, sigma), device, repeats)
        taken["student"] = seconds(lambda: one_step(model, eps, noise.sigma_max), device, repeats)
    name = {"model": f"{kind} {size}", "points": points, "precision": precision, "batch": batch}
    return [
        name
        | {"part": "teacher", "fields_per_second": batch / taken["teacher"], "share": flops / taken["teacher"] / peak},
        name
        | {
            "part": "rollout",
            "fields_per_second": batch / taken["rollout"],
            "share": CALLS * taken["forward"] / taken["rollout"],
        },
        name | {"part": "student", "fields_per_second": batch / taken["student"], "ms": 1e3 * taken["student"] / batch},
    ]


def residuals(points: int, batch: int, device: torch.device, repeats: int, bandwidth: float) -> list[dict[str, Any]]:
    """One row for each equation."""
    rows = []
    for name in sorted(PDES):
        pde = build_pde(name)
        window, channels = Window(pde.grid(points)), len(pde.channels)
        x = torch.rand(batch, channels, *window.grid.shape, device=device).add_(0.5).requires_grad_()
        params = draw_params(pde, 0, "x", range(batch)).float().to(device)

        def work(x: torch.Tensor = x, pde: Any = pde, window: Window = window, params: Any = params) -> None:
            shares = residual_shares(pde, window, x, params)
            torch.autograd.grad(sum(s.sum() for s in shares.values() if s.requires_grad), x)  # type: ignore[arg-type]

        taken = seconds(work, device, repeats)
        row = {"model": name, "points": points, "precision": "fp32", "batch": batch, "part": "residual"}
        rows.append(row | {"fields_per_second": batch / taken, "share": 2 * x.nbytes / taken / bandwidth})
    return rows


def measure(device: torch.device, points: list[int], size: str, repeats: int, tiny: bool = False) -> dict[str, Any]:
    """All rows, and what they are held against. tiny: of everything the least, to see that it runs."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    sizes = (64,) if tiny else (2048, 4096, 8192) if device.type == "cuda" else (1024, 2048)
    peaks = {precision: peak_flops(device, precision, repeats, sizes) for precision in PRECISIONS}
    bandwidth = copy_bandwidth(device, repeats, 2**12 if tiny else 2**28 if device.type == "cuda" else 2**24)
    rows: list[dict[str, Any]] = []
    for n in points:
        batch = 2 if tiny else max(1, min(64, (64 if device.type == "cuda" else 4) * 128**2 // n**2))
        for kind in ("unet", "fno"):
            for precision, peak in peaks.items():
                rows += networks(kind, size, n, batch, device, precision, repeats, peak)
        rows += residuals(n, batch, device, repeats, bandwidth)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    meta = {"device": name, "threads": torch.get_num_threads(), "peak_flops": peaks, "copy_bytes_per_second": bandwidth}
    return {"rows": rows, "meta": meta | {"versions": versions(), "repeats": repeats}}


def page(result: dict[str, Any]) -> str:
    """The page."""
    meta, rows = result["meta"], []
    for row in result["rows"]:
        share = f"{row['share']:.1%}" if "share" in row else f"{row['ms']:.2f} ms a sample"
        values = [row["part"], row["model"], str(row["points"]), row["precision"], str(row["batch"])]
        rows.append([*values, f"{row['fields_per_second']:.1f}", share])
    peaks = ", ".join(f"{value / 1e12:.2f} TFLOP/s in {name}" for name, value in meta["peak_flops"].items())
    return f"""# One device

`python -m benchmarks.gpu`, whose head says what a share is of. {meta["device"]}, torch {meta["versions"]["torch"]}: {peaks};
a copy moves {meta["copy_bytes_per_second"] / 1e9:.1f} GB/s.

{table(["part", "of", "points", "precision", "batch", "fields/s", "share"], rows)}
"""


def main() -> None:
    """Measure, print, write JSON and the page."""
    parser = options(__doc__, "gpu", "docs/gpu.md")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--points", nargs="*", type=int, default=[128, 512])
    parser.add_argument("--size", default="small")
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    result = measure(torch.device(arguments.device), arguments.points, arguments.size, arguments.repeats)
    finish(arguments, result, page)


if __name__ == "__main__":
    main()
