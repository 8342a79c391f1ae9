"""Warnings about a set that does not satisfy its equation exactly: wrong parameters, outliers, scalings."""

import numpy as np
import pytest

from pidscale.convert.quality import measure_quality
from pidscale.pde import build_pde
from tests.convert import foreign
from tests.convert.foreign import converted, has, npz


def measured(tmp_path, fields, equation="helmholtz", scale=1.0, **given):
    """Return quality and warnings of a set of fields [N, 2, Y, X]."""
    first, second = (channel.name for channel in build_pde(equation).channels)
    path = npz(tmp_path, **{first: fields[:, 0], second: scale * fields[:, 1]})
    done = converted(path, tmp_path / "set", equation, given, test=4)
    quality = measure_quality(tmp_path / "set", done.manifest, done.pde, done.grid)
    return quality, quality.warnings(done.pde)


def helmholtz(count, wavenumber):
    pde = build_pde("helmholtz", {"wavenumber": wavenumber})
    return foreign.truths(pde, pde.grid(17), count)


def test_a_wrong_parameter_is_reported_even_where_the_residual_is_small(tmp_path):
    quality, lines = measured(tmp_path, helmholtz(12, 1.3))
    assert (
        quality.solved["l2"] < 1e-4 < 0.01 < quality.data["l2"] < 0.05
    )  # a few hundredths of the null solution, far above rounding
    assert len(lines) == 1
    has(lines[0], "where our solver reaches", "the parameters are not exactly those of the data")


def test_the_right_parameter_gives_no_warning(tmp_path):
    assert not measured(tmp_path, helmholtz(12, 1.3), wavenumber=1.3)[1]


def test_one_wrong_sample_among_many_is_named(tmp_path):
    fields = helmholtz(40, 1.0)
    fields[23, 1] = fields[5, 1]
    quality, lines = measured(tmp_path, fields)
    assert (quality.outliers.count, quality.outliers.of, quality.outliers.source) == (1, 40, 23)
    assert any("1 of 40 samples" in line and "sample 23 of the file" in line for line in lines)
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize(("shuffled", "advised"), [(False, True), (True, False)])
def test_a_factor_is_advised_only_where_it_corrects_the_solution(tmp_path, shuffled, advised):
    fields = helmholtz(12, 1.0)
    if shuffled:
        fields[:, 1] = np.roll(fields[:, 1], 1, axis=0)
    quality, lines = measured(tmp_path, fields, scale=10.0)
    assert (quality.scaling[1] <= 0.5) is advised
    assert any("set scale.solution=" in line for line in lines) is advised
    assert any("unknown scaling" in line for line in lines)
