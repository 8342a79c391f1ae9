"""Files of what is known: npy, npz and tables of sensors, read right or refused in one line; answers, read back."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pidscale.app.files import read_known, write_answer
from pidscale.app.sensors import read_sensors
from pidscale.config import UserError
from pidscale.generator.generator import Generator
from pidscale.generator.tasks.observations import observe
from tests.generator.known import MASK, NAN, A, U, refused
from tests.generator.linear import linear_student

STUDENT = linear_student("darcy", points=6)
HEAT = linear_student("heat", frames=4)


# ---- files


def test_arrays_are_read_from_npy_and_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", A.astype(">f4"))
    np.savez(tmp_path / "both.npz", permeability=A, pressure=NAN, equation="darcy")
    np.savez_compressed(tmp_path / "masked.npz", pressure=U, pressure_mask=MASK)
    np.savez(tmp_path / "heat.npz", temperature_00=np.ones((4, 4)), diffusivity=0.002)
    assert np.array_equal(read_known(STUDENT, tmp_path / "a.npy").values, A)
    both, masked = (read_known(STUDENT, tmp_path / f"{name}.npz") for name in ("both", "masked"))
    assert sorted(both.values) == ["permeability", "pressure"] and both.masks is None and both.params == {}
    seen = observe(STUDENT, "reconstruct", masked.values, masked.masks)
    assert torch.equal(seen.known_NCYX[0, 1], torch.from_numpy(MASK))
    heat = read_known(HEAT, tmp_path / "heat.npz")
    assert list(heat.values) == ["temperature_00"] and heat.params["diffusivity"] == 0.002


def test_an_answer_is_read_back(tmp_path: Path) -> None:
    answer = STUDENT.forward(A, steps=2, starts=1)
    spread = HEAT.posterior("forward", np.ones((4, 4)), 3, steps=2)
    for student, found, name in ((STUDENT, answer, "pressure"), (HEAT, spread, "temperature_02")):
        write_answer(tmp_path / "answer.npz", student.pde.name, found)
        with np.load(tmp_path / "answer.npz", allow_pickle=False) as file:
            assert str(file["equation"]) == student.pde.name
            assert np.array_equal(file["residual/l2"], found.residual["l2"].numpy())
            assert np.array_equal(file["figures/mismatch"], found.mismatch.numpy())
        known = read_known(student, tmp_path / "answer.npz")
        assert sorted(known.values) == sorted(student.channels) and sorted(known.params) == sorted(student.pde.varying)
        first = found.fields if name == "pressure" else found.mean
        assert np.array_equal(known.values[name], first[name].numpy())
    assert [p.name for p in tmp_path.iterdir()] == ["answer.npz"]  # nothing temporary is left
    assert "no such" in refused(lambda: write_answer(tmp_path / "none" / "x.npz", "darcy", answer)).lower()


class Trap:
    def __reduce__(self):
        return (Path("/tmp/pidscale-trap").touch, ())


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", A)
    np.savez(tmp_path / "whole.npz", permeability=A, pressure=U)
    np.save(tmp_path / "object.npy", np.array([Trap(), 1], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "object.npz", permeability=np.array([Trap(), 1], dtype=object))
    (tmp_path / "trap.npy").write_bytes(pickle.dumps(Trap()))
    for kind in ("npy", "npz"):
        data = (tmp_path / f"whole.{kind}").read_bytes()
        (tmp_path / f"cut.{kind}").write_bytes(data[:-40])
        (tmp_path / f"head.{kind}").write_bytes(data[:20])
    np.savez(tmp_path / "other.npz", permeability=A, equation="poisson")
    np.savez(tmp_path / "stray.npz", permeability=A, porosity=A)
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name, part in {
        "object.npy": "pickled objects",
        "object.npz": "pickled objects",
        "trap.npy": "pickled objects",
        "cut.npy": "truncated or damaged, cannot be read as npy",
        "head.npy": "truncated or damaged, cannot be read as npy",
        "cut.npz": "truncated or damaged, cannot be read as npz",
        "head.npz": "truncated or damaged, cannot be read as npz",
        "other.npz": "of the equation poisson, the student is of darcy",
        "stray.npz": "no channel 'porosity' in darcy",
        "empty.npy": "neither npy nor npz",
        "folder": "is a folder",
        "nowhere.npy": "No such file",
    }.items():
        text = refused(lambda name=name: read_known(STUDENT, tmp_path / name))
        assert str(tmp_path / name) in text and part in text, text
    assert not Path("/tmp/pidscale-trap").exists()


def test_damage_anywhere_is_refused_or_read(tmp_path: Path) -> None:
    """Flipped bytes and cuts all over both kinds of file: never anything but a reading or one line."""
    rng = np.random.default_rng(0)
    np.savez_compressed(tmp_path / "x.npz", permeability=A, pressure=U)
    np.save(tmp_path / "x.npy", A)
    for kind in ("npy", "npz"):
        whole = (tmp_path / f"x.{kind}").read_bytes()
        for _ in range(150):
            data = bytearray(whole[: rng.integers(8, len(whole))] if rng.random() < 0.3 else whole)
            data[rng.integers(0, len(data))] ^= 1 << rng.integers(0, 8)
            (tmp_path / f"y.{kind}").write_bytes(bytes(data))
            try:
                observe(STUDENT, "reconstruct", read_known(STUDENT, tmp_path / f"y.{kind}").values)
            except UserError as error:
                assert "\n" not in str(error)


def test_a_member_that_claims_more_than_memory_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**24, 2**24)})
    (tmp_path / "big.npy").write_bytes(header.getvalue())
    with zipfile.ZipFile(tmp_path / "big.npz", "w") as archive:
        archive.writestr("permeability.npy", header.getvalue())
    for name in ("big.npy", "big.npz"):
        assert "truncated or damaged" in refused(lambda name=name: read_known(STUDENT, tmp_path / name))


# ---- tables of sensors


def table(tmp_path: Path, text: str, student: Generator = STUDENT) -> dict[str, np.ndarray]:
    (tmp_path / "sensors.csv").write_bytes(text.encode("utf-8"))
    return read_sensors(student, tmp_path / "sensors.csv").fields


def test_sensors_are_read(tmp_path: Path) -> None:
    text = "\ufeff# two probes\r\nvalue, Channel ,x,y\r\n\r\n3e-3,pressure,5,0\r\n 12 ,permeability, 1,2 # the well\r\n"
    text += '12,"permeability",1,2\n'
    found = table(tmp_path, text)
    assert sorted(found) == ["permeability", "pressure"]
    assert found["pressure"][0, 5] == 3e-3 and found["permeability"][2, 1] == 12.0
    assert all(np.isfinite(field).sum() == 1 for field in found.values())
    known = read_known(STUDENT, tmp_path / "sensors.csv")
    assert observe(STUDENT, "reconstruct", known.values).known_NCYX.sum() == 2


def test_sensors_at_coordinates_stay_where_they_are(tmp_path: Path) -> None:
    text = "channel,y_coord,x_coord,value\npressure,0.29,0.61,3e-3\npressure,1,0.5,2e-3\npermeability,0,0,12\n"
    (tmp_path / "sensors.csv").write_text(text)
    known = read_known(STUDENT, tmp_path / "sensors.csv")
    assert known.values is None
    assert known.places == {"pressure": [(0.29, 0.61, 3e-3), (1.0, 0.5, 2e-3)], "permeability": [(0.0, 0.0, 12.0)]}


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("separator", "point"), [(",", "."), (";", "."), (";", ","), ("\t", ".")])
def test_tables_of_spreadsheets_are_read(tmp_path: Path, mark: str, end: str, separator: str, point: str) -> None:
    rows = ["channel,y_coord,x_coord,value", '"pressure",0.29,0.61,3e-3 # a,b;c', "permeability,0,1,12.5"]
    rows = [row.replace(",", separator).replace(".", point) for row in rows]
    (tmp_path / "sensors.csv").write_bytes((mark + end.join(rows) + end).encode())
    found = read_sensors(STUDENT, tmp_path / "sensors.csv")
    assert found.places == {"pressure": [(0.29, 0.61, 3e-3)], "permeability": [(0.0, 1.0, 12.5)]} and not found.fields


HEAD = "channel,y,x,value\n"
TABLES = {
    "channel,y,value\n": "line 1: columns 'channel,y,value'; expected channel,y,x,value",
    HEAD: "no sensor in it",
    "": "no sensor in it",
    HEAD + "pressure,1,2\n": "line 2: 3 values, expected 4",
    HEAD
    + "\n# note\npresure,1,2,3\n": "line 4: no channel 'presure' in darcy, the student's equation; did you mean 'pressure'?",
    HEAD + "pressure,1,2,nan\n": "line 2: value='nan': expected a finite number",
    HEAD + "pressure,1,2,inf\n": "line 2: value='inf'",
    HEAD + "pressure,1,2,1e999\n": "line 2: value='1e999'",
    HEAD + "pressure,1,2,1_0\n": "line 2: value='1_0'",
    HEAD + "pressure,1,2,\n": "line 2: value=''",
    HEAD + "pressure,6,2,1\n": "line 2: y='6': expected a whole number from 0 to 5, inside the grid",
    HEAD + "pressure,1,-1,1\n": "line 2: x='-1': expected a whole number from 0 to 5",
    "channel;y;x;value\npressure;1;1;1,000,000\n": "line 2: value='1,000,000': expected a finite number",
    "channel\ty\tx\tvalue\npressure\t1\t1\t0,5\n": "line 2: value='0,5': expected a finite number; with decimal commas",
    "pressure;1;1;0,5\n": "line 1: columns 'pressure,1,1,0,5'; expected",
    "channel;y;x;value\npressure;1;1;0,5\npressure;1;2;1.234\n": "line 3: a decimal comma (line 2) and a point (line 3)",
    "channel;y;x;value\npressure;1;1;1.234,5\n": "line 2: a decimal comma (line 2) and a point (line 2) in one table",
    HEAD + "pressure,1.0,1,1\n": "line 2: y='1.0'",
    HEAD + "pressure,0.5,1,1\n": "inside the grid; coordinates stand in columns called channel,y_coord,x_coord,value",
    HEAD + "pressure,²,1,1\n": "line 2: y='²'",
    HEAD
    + "pressure,1,1,1\npressure,2,1,1\npressure,1,1,2\n": "lines 2 and 4 are pressure at the same point y=1, x=1, of 1 and 2",
    "channel,y_coord,x_coord,value\npressure,0.5,1.5,1\n": "line 2: x_coord=1.5: outside the grid, which goes from 0 to 1",
    "channel,y_coord,x_coord,value\npressure,x,0.5,1\n": "line 2: y_coord='x'",
    HEAD + '"pressure,1,1,1\n': "line 2: 1 values, expected 4",
    HEAD + "x" * 140000: "field larger than field limit",
}


@pytest.mark.parametrize("text", TABLES, ids=range(len(TABLES)))
def test_wrong_tables_are_named_by_line(tmp_path: Path, text: str) -> None:
    said = refused(lambda: table(tmp_path, text))
    assert str(tmp_path / "sensors.csv") in said and TABLES[text] in said, said


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sensors.csv").write_bytes(b"channel,y,x,value\npressure,1,1,\xff\xfe\n")
    assert "byte 31 is not text in UTF-8" in refused(lambda: read_known(STUDENT, tmp_path / "sensors.csv"))


cells = st.one_of(
    st.sampled_from(["pressure", "permeability", "0", "5", "1.5", "nan", "-0", '"', "#"]), st.text(max_size=6)
)
rows = st.lists(st.lists(cells, max_size=5).map(",".join), max_size=6)
heads = st.sampled_from([HEAD, "channel,y_coord,x_coord,value\n", "value,x,y,channel\r\n", ""])


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(heads, rows, st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_table_is_read_or_refused_in_one_line(tmp_path: Path, head: str, lines: list[str], end: str) -> None:
    try:
        (tmp_path / "sensors.csv").write_bytes((head + end.join(lines)).encode("utf-8", "surrogatepass"))
        found = read_sensors(STUDENT, tmp_path / "sensors.csv")
    except UserError as error:
        assert "\n" not in str(error) and "\r" not in str(error)
    else:
        assert found.fields or found.places
        assert all(field.shape == (6, 6) and np.isfinite(field).any() for field in found.fields.values())
        assert all(0 <= place <= 1 for sensors in found.places.values() for *at, _ in sensors for place in at)


good = st.tuples(st.sampled_from(["pressure", "permeability"]), st.integers(0, 5), st.integers(0, 5))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(good, st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=20))
def test_every_sensor_of_a_good_table_is_kept(tmp_path: Path, sensors: dict) -> None:
    found = table(tmp_path, HEAD + "".join(f"{c},{y},{x},{value!r}\n" for (c, y, x), value in sensors.items()))
    assert {(c, y, x): found[c][y, x] for c, y, x in sensors} == sensors
    assert sum(np.isfinite(field).sum() for field in found.values()) == len(sensors)
