"""What is told of a set that does not quite obey its equation, whatever its units: parameters, strangers, scalings."""

import numpy as np
import pytest

from pidscale.convert.quality import judge
from pidscale.pde import build_pde
from tests.convert import foreign
from tests.convert.foreign import converted, has, npz


def judged(tmp_path, fields, equation="helmholtz", scale=1.0, **given):
    """Worth and warnings of a set of these fields [N, 2, Y, X]."""
    first, second = (channel.name for channel in build_pde(equation).channels)
    path = npz(tmp_path, **{first: fields[:, 0], second: scale * fields[:, 1]})
    done = converted(path, tmp_path / "set", equation, given, test=4)
    worth = judge(tmp_path / "set", done.manifest, done.pde, done.grid)
    return worth, worth.warnings(done.pde)


def helmholtz(count, wavenumber):
    pde = build_pde("helmholtz", {"wavenumber": wavenumber})
    return foreign.truths(pde, pde.grid(17), count)


def test_a_wrong_parameter_is_told_where_it_leaves_little(tmp_path):
    worth, said = judged(tmp_path, helmholtz(12, 1.3))
    assert worth.own["l2"] < 1e-4 < 0.01 < worth.data["l2"] < 0.05  # a few hundredths of nothing, far above rounding
    assert len(said) == 1
    has(said[0], "where the scheme reaches", "parameters that are not quite those of the data")


def test_the_right_parameter_is_silent(tmp_path):
    assert not judged(tmp_path, helmholtz(12, 1.3), wavenumber=1.3)[1]


def test_one_stranger_among_many_is_named(tmp_path):
    fields = helmholtz(40, 1.0)
    fields[23, 1] = fields[5, 1]
    worth, said = judged(tmp_path, fields)
    assert (worth.odd.count, worth.odd.of, worth.odd.source) == (1, 40, 23)
    assert any("1 of 40 samples" in line and "sample 23 of the file" in line for line in said)
    assert not any("\n" in line for line in said)


@pytest.mark.parametrize(("strange", "advised"), [(False, True), (True, False)])
def test_a_factor_is_advised_only_where_it_mends(tmp_path, strange, advised):
    fields = helmholtz(12, 1.0)
    if strange:
        fields[:, 1] = np.roll(fields[:, 1], 1, axis=0)
    worth, said = judged(tmp_path, fields, scale=10.0)
    assert (worth.against[1] <= 0.5) is advised
    assert any("set scale.solution=" in line for line in said) is advised
    assert any("unknown scaling" in line for line in said)
