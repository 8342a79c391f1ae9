"""The numbers of an HDF5 file lie in that file: links to other files are named and never followed."""

import h5py
import numpy as np
import pytest

from tests.convert import foreign
from tests.convert.foreign import has, refused


@pytest.mark.parametrize("layout", ["pdebench", "well", "mat73", "hdf5"])
def test_a_link_to_another_file_is_refused_and_not_followed(tmp_path, darcy, layout):
    permeability, pressure = darcy.swapaxes(0, 1)
    arrays = {"permeability": permeability, "pressure": pressure}
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.full(pressure.shape, 7.0)
    path = tmp_path / ("a.mat" if layout == "mat73" else "a.h5")
    if layout == "pdebench":
        foreign.pdebench_darcy(path, permeability, pressure)
    elif layout == "well":
        foreign.well(path, arrays)
    elif layout == "mat73":
        foreign.matlab73(path, **arrays)
    else:
        foreign.plain(path, **arrays)
    name = {"pdebench": "tensor", "well": "t0_fields/pressure"}.get(layout, "pressure")
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/data")
    line = refused(path, "darcy", layout=layout)
    has(
        line,
        "one of which is missing" if layout == "hdf5" else f"'{name}' is a link to another file, which is not followed",
    )
    assert refused(path, "darcy") == line  # the same where the layout is detected
