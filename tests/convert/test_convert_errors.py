"""Data and settings that contradict each other: one line names file and key, and what to do; nothing is written."""

import numpy as np
import pytest

from pidscale.config import UserError
from pidscale.convert import grid_checks
from pidscale.convert.request import parse_request, split_words
from pidscale.ops.grid import Grid
from pidscale.pde import build_pde
from pidscale.pde.heat import Heat
from tests.convert import foreign
from tests.convert.foreign import converted, has, npz, refused


def test_a_missing_or_ambiguous_channel_is_refused(tmp_path, darcy):
    has(
        refused(npz(tmp_path, a=darcy[:, 0], q=darcy[:, 1])),
        "no array is known as pressure",
        "q [5, 9, 9]",
        "channels.pressure=",
    )
    has(
        refused(npz(tmp_path, a=darcy[:, 0], u=darcy[:, 1], y=darcy[:, 1])),
        "u and y could be pressure",
        "channels.pressure=",
    )
    path = npz(tmp_path, a=darcy[:, 0], q=darcy[:, 1])
    has(refused(path, channels={"pressure": "r"}), "channels.pressure=r", "q [5, 9, 9]")
    has(refused(path, channels={"presure": "q"}), "channels.presure", "permeability, pressure")
    line = refused(path, channels={"pressure": "a"})
    has(line, "'a' would be permeability and pressure", "the real numeric arrays are a [5, 9, 9]")
    has(refused(path, scale={"velocity": 2.0}), "scale.velocity", "permeability, pressure")


def test_shapes_and_orders_of_axes_that_do_not_fit_are_refused(tmp_path, darcy, wave):
    has(refused(npz(tmp_path, a=darcy[:, 0], u=darcy[:, 1, :, 1:])), "[5, 9, 9]", "[5, 9, 8]", "must agree")
    has(refused(npz(tmp_path, a=darcy[:, 0], u=darcy[:4, 1])), "[5, 9, 9]", "[4, 9, 9]")
    has(refused(npz(tmp_path, a=darcy[:, 0], u=darcy[:, 1, None, None])), "[N, Y, X]", "axes.u")
    turned = npz(tmp_path, u=np.repeat(wave, 2, axis=1)[:, :6].transpose(0, 2, 3, 1))
    has(refused(turned, "wave"), "looks like [N, Y, X, T]", "axes.u=NYXT")
    has(refused(npz(tmp_path, u=wave[:, 0]), "wave"), "two ends alone do not determine", "[N, T, Y, X]")
    has(refused(npz(tmp_path, u=wave[:, [0, -1]]), "wave"), "2 times", "at least 4")
    has(refused(npz(tmp_path, u=wave), "wave", start=2), "start=2 every=1 leaves 2")
    has(refused(npz(tmp_path, a=darcy[:, 0], u=darcy[:, 1]), every=2), "every=2", "no times")
    three = npz(tmp_path, data=np.concatenate([darcy, darcy[:, :1]], axis=1))
    has(refused(three), "data", "[5, 3, 9, 9]", "axes.data")
    has(refused(three, axes={"data": "NSYX"}), "3 components", "data:NUMBER")
    has(
        refused(three, axes={"data": "NSYX"}, channels={"permeability": "data:0", "pressure": "data:7"}),
        "3 components, counted from 0",
    )


def test_values_that_are_not_finite_are_refused(tmp_path, darcy):
    broken = darcy.astype(np.float64)
    broken[3, 1, 2, 2] = np.nan
    has(
        refused(npz(tmp_path, a=broken[:, 0], u=broken[:, 1])),
        "a.npz: 1 of 5 samples",
        "sample 3 (pressure, array 'u', at y 2, x 2: nan, not finite)",
    )
    broken[3, 1, 2, 2] = 1e200
    has(refused(npz(tmp_path, a=broken[:, 0], u=broken[:, 1])), "sample 3", "float32")
    has(refused(npz(tmp_path, a=darcy[:, 0], u=darcy[:, 1]), scale={"pressure": "nan"}), "scale.pressure=nan")
    has(refused(npz(tmp_path, a=darcy[:, 0], u=darcy[:, 1]), scale={"pressure": "1e25"}), "residual beyond float32")


def test_kinds_and_sizes_that_the_equation_does_not_support_are_refused(tmp_path, darcy, wave):
    path = npz(tmp_path, a=darcy[:, 0], u=darcy[:, 1])
    has(refused(path, grid="cell"), "grid=cell: darcy is measured on node grids only", "grid=node force=true")
    has(refused(path, grid="nodes"), "grid=nodes", "strip")
    has(refused(npz(tmp_path, a=darcy[:, 0, :3], u=darcy[:, 1, :3])), "a.npz: grid shape (3, 9): at least 4")
    has(refused(npz(tmp_path, u=np.repeat(wave, 30, axis=1)), "wave"), "frames=120")


def test_an_edge_that_is_not_zero_is_an_error_or_a_warning(tmp_path, darcy):
    raised = darcy.copy()
    raised[:, 1] += 1.0
    has(
        refused(npz(tmp_path, a=raised[:, 0], u=raised[:, 1])),
        "pressure on the edge is",
        "another boundary condition",
        "force=true",
    )
    almost = darcy.copy()
    almost[:, 1] += 0.01 * darcy[:, 1].std()
    done = converted(npz(tmp_path, a=almost[:, 0], u=almost[:, 1]), tmp_path / "set")
    assert any("pressure on the edge is 0.01" in line or "0.00" in line for line in done.warnings)


@pytest.mark.parametrize("points", [16, 32, 128])
def test_cell_centres_given_as_nodes_are_refused(tmp_path, points):
    y = (np.arange(points) + 0.5) / points
    size = np.random.default_rng(0).uniform(1, 2, size=(4, 1, 1))
    u = size * (np.sin(np.pi * y)[:, None] * np.sin(np.pi * y)[None])
    a = np.where(np.random.default_rng(1).random((4, points, points)) > 0.5, 12.0, 3.0)
    has(
        refused(npz(tmp_path, a=a, u=u)),
        "these are cell centres, not nodes",
        "interpolate the fields to nodes",
        "force=true",
    )
    taken = converted(npz(tmp_path, a=a, u=u), tmp_path / "forced", force="true", test=1)
    assert any("cell centres" in line for line in taken.warnings)


def test_fields_that_are_not_periodic_are_refused(tmp_path, wave, burgers):
    repeated = np.pad(wave, ((0, 0), (0, 0), (0, 1), (0, 1)), mode="wrap")
    has(
        refused(npz(tmp_path, u=repeated), "wave"),
        "displacement repeats its first point at the end of y",
        "drop_end=true",
    )
    strip = np.pad(burgers, ((0, 0), (0, 0), (0, 1)), mode="wrap")
    has(refused(npz(tmp_path, u=strip), "burgers"), "at the end of x", "drop_end=true")
    has(
        refused(npz(tmp_path, u=burgers), "burgers", drop_end="true"), "does not repeat its first point at the end of x"
    )
    ramp = burgers + np.linspace(0, 20, 16)
    has(refused(npz(tmp_path, u=ramp), "burgers"), "jumps across the periodic edge of x", "not periodic")
    a = npz(tmp_path, a=np.ones((3, 8, 8)), u=np.ones((3, 8, 8)))
    has(refused(a, drop_end="true"), "darcy is defined on node points")


def test_coordinates_that_contradict_the_grid_are_refused(tmp_path, darcy, wave):
    cells = foreign.pdebench_darcy(tmp_path / "a.h5", darcy[:, 0], darcy[:, 1])
    has(refused(cells), "a.h5: its y coordinate goes from", "cell centres", "both ends are needed", "force=true")
    long = npz(tmp_path, u=wave, x=np.arange(8) * 2 * np.pi / 8)
    has(refused(long, "wave"), "its x coordinate spans 6.283", "the equation's domain 1", "rescale")
    uneven = npz(tmp_path, u=wave, x=np.linspace(0, 1, 8) ** 2)
    has(refused(uneven, "wave"), "x coordinate has uneven steps")
    falling = npz(tmp_path, u=wave, x=1 - np.arange(8) / 8)
    has(refused(falling, "wave"), "its x coordinate decreases; reverse that axis first", "force=true")
    short = npz(tmp_path, u=wave, x=np.arange(5) / 5)
    has(refused(short, "wave"), "8 points along x, its coordinate 5", "axes.u")
    walls = foreign.well(tmp_path / "w.h5", {"displacement": wave}, 0.3, edges="WALL")
    has(refused(walls, "wave"), "boundary along y is stated as wall", "periodic")


def test_times_that_contradict_the_settings_are_refused(tmp_path, wave):
    times = np.linspace(0, 0.3, 4)
    has(refused(npz(tmp_path, u=wave, t=times**2), "wave"), "times do not have even steps", "every=")
    has(refused(npz(tmp_path, u=wave, t=times[::-1]), "wave"), "its times decrease", "ascending order")
    has(
        refused(npz(tmp_path, u=wave, t=times), "wave", {"duration": 1.0}), "duration is 0.3", "pde.params.duration=0.3"
    )
    has(refused(npz(tmp_path, u=wave, t=times), "wave", {"frames": 11}), "4 times", "pde.params.frames=4")
    has(refused(npz(tmp_path, u=wave, t=times[:3]), "wave"), "3 values in its time coordinate")


def test_a_part_of_unknown_times_needs_a_duration(tmp_path, wave, burgers):
    """The equation's default duration is at best that of the whole file."""
    path = npz(tmp_path, u=np.repeat(wave, 2, axis=1))
    for arguments in ({"every": 2}, {"start": 1}):
        has(refused(path, "wave", **arguments), "a.npz: has no times", "set pde.params.duration")
    assert converted(path, tmp_path / "out", "wave", {"duration": 0.3}, every=2, test=1).pde.duration == 0.3
    rows = npz(tmp_path, u=burgers)
    has(refused(rows, "burgers", start=1), "has no times", "start=1 every=1", "set pde.params.duration")
    rows = npz(tmp_path, u=burgers, viscosity=0.05)
    has(refused(rows, "stokes", start=1), "has no times", "write its times into the file")


def test_digits_that_are_not_ascii_are_refused(tmp_path, darcy):
    path = npz(tmp_path, a=darcy[:, 0], u=darcy[:, 1], table=np.ones((5, 3)))
    has(refused(path, channels={"permeability": "a:²"}), "channels.permeability=a:²", "ARRAY:NUMBER")
    has(refused(path, parameters={"source": "table:²"}), "parameters.source=table:²", "ARRAY:i")


def test_parameters_that_contradict_the_settings_are_refused(tmp_path, burgers, darcy):
    one = npz(tmp_path, u=burgers, visc=0.02)
    has(refused(one, "burgers", {"viscosity": 0.01}), "viscosity is 0.02 in the file", "set pde.params.viscosity=0.02")
    several = npz(tmp_path, u=burgers, visc=np.array([0.01, 0.01, 0.02, 0.03]))
    has(refused(several, "burgers"), "'visc' varies from 0.01 to 0.03", "one viscosity for a set")
    both = npz(tmp_path, u=burgers, visc=0.02, nu=0.02)
    has(refused(both, "burgers"), "visc and nu could be viscosity", "parameters.viscosity=")
    has(refused(both, "burgers", parameters={"viscosity": "mu"}), "parameters.viscosity=mu", "visc, nu")
    has(refused(both, "burgers", parameters={"mu": "nu"}), "parameters.mu", "viscosity")
    has(refused(npz(tmp_path, u=burgers, visc=5.0), "burgers"), "pde.params.viscosity=5.0", "expected 0.001 to 1")
    has(refused(npz(tmp_path, u=burgers, visc=0.01, mass=np.array([1, 2, np.nan, 3])), "burgers"), "sample 2, 'mass'")


def test_phases_that_contradict_the_settings_are_refused(tmp_path, darcy):
    path = npz(tmp_path, a=darcy[:, 0], u=darcy[:, 1])
    has(refused(path, given={"low": 4.0}), "phases 3 and 12", "set pde.params.low=3")
    smooth = npz(tmp_path, a=darcy[:, 0] + darcy[:, 1], u=darcy[:, 1])
    has(refused(smooth), "more than two values", "pde=darcy_lognormal")
    zero = npz(tmp_path, a=(darcy[:, 0] > 5).astype(np.float32), u=darcy[:, 1])
    has(refused(zero), "has values down to 0", "boolean")
    has(
        refused(npz(tmp_path, a=np.full((5, 9, 9), 3.0), u=darcy[:, 1])),
        "a.npz: permeability (array 'a') is 3 everywhere",
    )


def test_wrong_settings_and_arguments_are_refused(tmp_path, darcy):
    path = npz(tmp_path, a=darcy[:, 0], u=darcy[:, 1])
    has(refused(path, "navier"), "'navier': not an equation", "darcy")
    has(refused(path, given={"lowest": 1.0}), "pde.params.lowest")
    has(refused(path, test=5), "test=5", "5 distinct samples")
    has(refused(path, test=1.5), "test=1.5")
    has(refused(path, test="many"), "test=many: no such file")
    has(refused(path, duplicates="keep"), "duplicates=keep")
    has(refused(path, every=0), "every=0")
    has(refused(path, axes={"a": "NYY"}), "axes.a=NYY")
    has(refused(path, axes={"b": "NYX"}), "axes.b: ", "a, u")
    has(refused(path, samples_per_shard=0), "samples_per_shard=0")
    for words, part in (
        (["out=b"], "source=: missing"),
        (["source=a"], "out=: missing"),
        (["source=", "out=b"], "source="),
        (["source=a", "out=s3://b/set"], "out=s3://b/set: a set is made in a folder"),
        (["source=a", "out=b", "tset=1"], "did you mean test?"),
        (["source=a", "out=b", "bad=drop"], "bad=drop: expected refuse or omit"),
        (["source=a", "out=b", "seed=1.5"], "seed=1.5: expected a whole number"),
        (["source=a", "out=b", "force=yes"], "force=yes: expected true or false"),
        (["source=a", "out=b", "channels=u"], "channels.NAME=value"),
        (["source=a", "out=b", "layout"], "key=value"),
    ):
        with pytest.raises(UserError) as error:
            parse_request(words)
        has(str(error.value), part)
    assert split_words(["pde=wave", "out=b", "pde.params.frames=4"]) == (["out=b"], ["pde=wave", "pde.params.frames=4"])


def test_a_folder_that_holds_other_files_is_refused(tmp_path, darcy):
    path = npz(tmp_path, a=darcy[:, 0], u=darcy[:, 1])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train-00000.tar").write_bytes(b"precious")
    with pytest.raises(UserError, match=r"not made here.*another out"):
        converted(path, tmp_path / "out")
    assert (tmp_path / "out" / "train-00000.tar").read_bytes() == b"precious"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        converted(path, tmp_path / "file")


def test_parameters_of_each_sample_are_checked(tmp_path):
    fields = foreign.truths(Heat.from_params({"frames": 4}), foreign.WAVE.grid(8), 4)
    has(
        refused(npz(tmp_path, u=fields), "heat"), "a.npz: sample 0 has no 'diffusivity'", "parameters.diffusivity=ARRAY"
    )
    short = npz(tmp_path, u=fields, diffusivity=np.array([0.001, 0.002, 0.003]))
    has(refused(short, "heat"), "'diffusivity' has 3 values for 4 samples")
    alphas = npz(tmp_path, u=fields, alpha=np.array([0.001, 0.002, 0.003, 0.02]))
    line = refused(alphas, "heat", {"diffusivity_high": 0.01})
    has(line, "sample 3 has diffusivity=0.02", "set pde.params.diffusivity_high=0.02")
    has(refused(alphas, "heat", parameters={"diffusivity": "u:0"}), "parameters.diffusivity=u:0", "alpha")
    has(refused(npz(tmp_path, u=fields, alpha=np.array([0.001, np.inf, 1, 1])), "heat"), "sample 1, 'diffusivity'")
    below = npz(tmp_path, u=fields, alpha=np.array([0.001, -0.002, 0.003, 0.004]))
    has(refused(below, "heat"), "a.npz: heat does not accept its numbers", "-0.002", "repair the file")
    stokes = npz(tmp_path, u=fields[:, 0], nu=0.01, t=np.linspace(0, 2, 8))
    has(refused(stokes, "stokes"), "times span 2, stokes has a duration of 1")


def test_a_refusal_shows_numbers_that_differ_and_its_remedy_is_accepted(tmp_path, wave):
    """Rounded to a few digits, what a file has and what is expected could look the same."""
    points = np.linspace(0, 1, 4000, endpoint=False) * (1 + 1e-4)
    lines = grid_checks.check_coordinates(Grid((4, 4000), (1.0, 1.0), "periodic", "periodic"), {"x": points}, {})
    has(lines[0], "spans 1.0001 in 4000 points, the equation's domain 1;")
    uneven = npz(tmp_path, u=wave, x=np.arange(8) / 8 + np.eye(8)[4] * 2e-4)
    has(refused(uneven, "wave"), "uneven steps (0.1248 to 0.1252)")
    times = np.array([0, 0.1, 0.2004, 0.3])
    has(refused(npz(tmp_path, u=wave, t=times), "wave"), "even steps (0.0996 to 0.1)")


def test_the_range_that_a_refusal_names_holds_the_values_of_the_file(tmp_path):
    pde = build_pde("heat", {"frames": 4})
    low, high = 0.0012001235, 0.0037001234
    kappa = np.array([low, 0.002, 0.003, high], np.float32)
    assert float(kappa[0]) < low and float(kappa[3]) > high  # as float64, though float32 writes them so
    path = npz(tmp_path, u=foreign.truths(pde, foreign.WAVE.grid(8), 4), kappa=kappa)
    for number, key, given, value in (
        (0, "diffusivity_low", low * 1.0001, low),
        (3, "diffusivity_high", high * 0.9999, high),
    ):
        line = refused(path, "heat", {key: given})
        has(
            line,
            f"sample {number} has diffusivity={value}, beyond pde.params.{key}={given}; set pde.params.{key}={value}",
        )
        assert converted(path, tmp_path / key, "heat", {key: value}, test=0).manifest
