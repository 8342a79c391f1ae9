"""What a reader of a page has before it: files of other people's data, a set in an object store, SLURM's commands, a hub.

All but the hub are made in the current folder. Files have the names that pages use, and few samples on few points.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.docs.blocks import ROOT
from tests.hub import running

SBATCH = """#!/usr/bin/env bash
# Stands for SLURM's: runs a script at once, on this host alone.
while [[ $1 == -* ]]; do shift; done
export SLURM_JOB_ID=7 SLURM_JOB_NODELIST=$(hostname) SLURM_CPUS_ON_NODE=2 RAY_TMPDIR=/tmp/ray
export PIDSCALE_RAY_OPTIONS=--object-store-memory=100000000
exec bash "$@"
"""


def foreign() -> None:
    """Write the files of docs/converting.md as the tests of conversion write them."""
    import numpy as np
    import xarray as xr

    from pidscale.ops.grid import Grid
    from pidscale.pde import build_pde
    from tests.convert.foreign import (
        matlab73,
        pdebench_burgers,
        pdebench_darcy,
        pdebench_groups,
        plain,
        truths,
        well,
    )

    here = Path()
    darcy = truths(build_pde("darcy"), build_pde("darcy").grid(16), 20)
    strip = Grid((17, 16), (1.0, 1.0), "strip", "periodic")
    burgers = truths(build_pde("burgers", {"viscosity": 0.1 / np.pi}), strip, 20)[:, 0]
    poisson = truths(build_pde("poisson"), build_pde("poisson").grid(16), 20)
    plain(here / "darcy_train_16.pt", x=darcy[:, 0] > 7, y=darcy[:, 1])
    plain(here / "burgers_train_16.pt", y=burgers)
    plain(here / "piececonst_r421_N1024_smooth1.mat", coeff=darcy[:, 0].astype(float), sol=darcy[:, 1].astype(float))
    pdebench_darcy(here / "2D_DarcyFlow_beta1.0_Train.hdf5", darcy[:, 0], darcy[:, 1])
    pdebench_burgers(here / "1D_Burgers_Sols_Nu0.1.hdf5", burgers, nu=0.1)
    np.save(here / "joint.npy", poisson)

    def in_time(name: str, frames: int, **params: float) -> np.ndarray:
        pde = build_pde(name, {"frames": frames, **params})
        return truths(pde, pde.grid(16), 20)

    flow = in_time("navier_stokes", 6, viscosity=0.001)
    matlab73(here / "ns_V1e-3_N5000_T50.mat", u=flow.transpose(0, 3, 2, 1), t=np.linspace(0, 1, 6)[:, None])
    react = in_time("reaction_diffusion", 61, duration=3)
    pdebench_groups(here / "2D_diff-react_NA_NA.h5", react.reshape(20, 61, 2, 16, 16), 3)
    waves = in_time("wave", 4, duration=0.3)
    well(here / "well.hdf5", {"height": waves}, 0.3, {"c": 1.0})
    heat = in_time("heat", 4)
    dims = ("sample", "time", "y", "x")
    times = {"time": np.linspace(0, 0.3, 4)}
    for name, half in (("one", waves[:10]), ("two", waves[10:])):
        xr.Dataset({"u": (dims, half)}, times).to_zarr(here / "simulations" / f"{name}.zarr", consolidated=False)
    known = {"temperature": (dims, heat), "diffusivity": ("sample", np.full(20, 0.005))}
    xr.Dataset(known).to_netcdf(here / "simulated.nc", format="NETCDF3_CLASSIC", engine="netcdf4")
    plain(here / "mine.npz", temperature=100 * heat, kappa=np.full(20, 0.005))


def upload() -> None:
    """Make a small set of Darcy flow on 64 points, and upload it to the two addresses that pages name."""
    import boto3

    from pidscale.make.make import make_shard_set
    from pidscale.pde import build_pde
    from tests.s3 import BUCKET

    pde = build_pde("darcy")
    made = Path("to-upload")
    make_shard_set(
        pde, made, {"train": 48, "test": 16}, grid=pde.grid(64), seed=0, samples_per_shard=32, parallel=False
    )
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    for name in ("darcy64", "shards/darcy64"):
        for path in sorted(made.iterdir()):
            client.put_object(Bucket=BUCKET, Key=f"{name}/{path.name}", Body=path.read_bytes())
    shutil.rmtree(made)


@contextlib.contextmanager
def hub(home: Path) -> Iterator[None]:
    """Run a hub that has a student by the name that pages use; its variables are in the environment of all pages."""
    with running() as found:
        found.commits["org/name"] = [{path.name: path.read_bytes() for path in (ROOT / "students" / "darcy").iterdir()}]
        os.environ.update(found.environment(home))
        yield


def slurm() -> None:
    """Write stand-ins for SLURM's commands to a folder of PATH."""
    from tests.scheduler import write_commands

    folder = write_commands(Path("../bin"))
    (folder / "sbatch").write_text(SBATCH)
    (folder / "sbatch").chmod(0o755)
