"""Observations from arrays: every value goes to its channel and point, and mistakes are one line that names them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pidscale.diffusion.normaliser import Normaliser
from pidscale.generator.tasks.observations import TOLERANCE, observe, warnings_for
from pidscale.generator.tasks.readings import TOLERANCE_OF_SOME
from tests.generator.known import MASK, NAN, A, U, refused
from tests.generator.linear import linear_student

STUDENT = linear_student("darcy", points=6)


@pytest.mark.parametrize(
    ("task", "values", "shape"),
    [
        ("forward", A, (1, 2, 6, 6)),
        ("forward", A[None].repeat(3, 0), (3, 2, 6, 6)),
        ("forward", {"permeability": A.tolist()}, (1, 2, 6, 6)),
        ("inverse", torch.from_numpy(U)[None, None], (1, 2, 6, 6)),
        ("reconstruct", np.stack([A, NAN]), (1, 2, 6, 6)),
        ("reconstruct", np.stack([A, NAN])[None].repeat(2, 0), (2, 2, 6, 6)),
        ("reconstruct", {"pressure": NAN[None].repeat(2, 0)}, (2, 2, 6, 6)),
    ],
)
def test_values_go_to_their_channels_and_points(task: str, values, shape: tuple[int, ...]) -> None:
    seen = observe(STUDENT, task, values)
    assert seen.values_NCYX.shape == seen.known_NCYX.shape == shape and len(seen) == shape[0]
    known = torch.zeros(shape, dtype=torch.bool)
    if task != "inverse" and not (isinstance(values, dict) and "pressure" in values):
        known[:, 0] = True
    if task != "forward":
        known[:, 1] = torch.from_numpy(MASK) if task == "reconstruct" else True
    assert torch.equal(seen.known_NCYX, known)
    wanted = torch.stack([torch.from_numpy(A), torch.from_numpy(U)]).float()
    torch.testing.assert_close(seen.values_NCYX, torch.where(known, wanted, 0.0))
    assert torch.equal(seen.whole_NC, known.all(dim=(2, 3)))
    wanted = torch.where(known.float().mean(dim=(2, 3)) < 0.5, TOLERANCE_OF_SOME, TOLERANCE)
    torch.testing.assert_close(seen.sigma_NC, wanted * torch.tensor(STUDENT.normaliser.std))


def test_masks_select_the_known_points() -> None:
    fields = {"permeability": A, "pressure": U}
    for mask in (MASK, {"permeability": MASK, "pressure": MASK}, MASK.astype(int)[None]):
        assert torch.equal(observe(STUDENT, "reconstruct", fields, mask).known_NCYX[0, 0], torch.from_numpy(MASK))
    joint = observe(STUDENT, "reconstruct", np.stack([A, U]), np.stack([MASK, ~MASK]))
    assert torch.equal(joint.known_NCYX[0, 1], torch.from_numpy(~MASK))
    partly = observe(STUDENT, "reconstruct", fields, {"pressure": MASK})  # the other: where not NaN
    assert partly.known_NCYX[0, 0].all() and partly.known_NCYX[0, 1].sum() == 6
    hidden = observe(STUDENT, "reconstruct", {"pressure": np.where(MASK, U, np.inf)}, MASK)
    assert hidden.values_NCYX.isfinite().all()


def test_sigma_is_one_number_or_one_for_each_channel() -> None:
    fields = {"permeability": A, "pressure": U}
    assert observe(STUDENT, "reconstruct", fields, sigma=0.5).sigma_NC.tolist() == [[0.5, 0.5]]
    assert observe(STUDENT, "reconstruct", fields, sigma=torch.tensor(0.5)).sigma_NC.tolist() == [[0.5, 0.5]]
    mixed = observe(STUDENT, "reconstruct", fields, sigma={"pressure": 2e-4})
    torch.testing.assert_close(mixed.sigma_NC, torch.tensor([[TOLERANCE * STUDENT.normaliser.std[0], 2e-4]]))
    assert mixed.whole_NC.tolist() == [[True, False]]  # a channel with noise may not replace the generated one


def test_wrong_values_are_named() -> None:
    cases = [
        (("forward", np.zeros((5, 6))), "values: shape [5, 6], expected [6, 6] or [n, 6, 6]: permeability"),
        (("reconstruct", A), "values: shape [6, 6], expected [2, 6, 6] or [n, 2, 6, 6]: permeability to pressure"),
        (("forward", {"permeability": A[:4]}), "values['permeability']: shape [4, 6], expected [6, 6]"),
        (("forward", {"permeabilty": A}), "did you mean 'permeability'? it has permeability, pressure"),
        (("forward", {"pressure": U}), "values['pressure']: forward finds this channel; it takes permeability"),
        (("forward", {}), "values: no values of any channel; forward takes permeability"),
        (("forward", NAN), "permeability of field 0 is not finite in single precision at y=0, x=1"),
        (("reconstruct", np.full((2, 6, 6), np.nan)), "no value of field 0 is known"),
        (("reconstruct", {"pressure": U}, np.zeros((6, 6))), "no value of field 0 is known: its mask is empty"),
        (("reconstruct", {"pressure": U}, 2 * MASK), "mask['pressure']: expected true or false"),
        (("reconstruct", {"pressure": U}, {"permeability": MASK}), "mask['permeability']: this channel has no values"),
        (("reconstruct", {"pressure": U}, MASK[:3]), "mask['pressure']: shape [3, 6]"),
        (("reconstruct", {"pressure": NAN}, ~MASK), "pressure of field 0 is not finite"),
        (
            ("reconstruct", {"pressure": U[None].repeat(2, 0), "permeability": A[None].repeat(3, 0)}),
            "give as many of each",
        ),
        (("forward", "abc"), "values: not an array of real numbers"),
        (("forward", A, None, 0.0), "sigma=0.0: expected a finite number above 0"),
        (("forward", A, None, 1e300), "sigma=1e+300: expected a number of 1e+30 or less"),
        (("forward", A, None, 10**400), "expected a finite number above 0"),
        (("forward", A, None, {"permeability": "x"}), "sigma['permeability']='x'"),
        (("forward", A, None, {"k": 1.0}), "sigma: no channel 'k' in darcy"),
        (("forward", A, None, {"pressure": 1.0}), "sigma['pressure']: this channel has no values"),
        (("reconstruct", {"pressure": U}, MASK[:3], None, "a.npz"), "a.npz: mask['pressure']: shape [3, 6]"),
        (("reconstruct", {"pressure": U}, {"presure": MASK}, None, "a.npz"), "a.npz: mask: no channel 'presure'"),
        (("forward", 1e300 * np.ones((6, 6))), "permeability of field 0 is not finite in single precision at y=0, x=0"),
        (("reconstruct", np.ma.masked_array([A, U], mask=[MASK, MASK])), "values: a masked array; give values.filled"),
        (("reconstruct", {"pressure": np.ma.masked_array(U, mask=MASK)}), "values['pressure']: a masked array"),
        (("sideways", A), "task='sideways': expected one of forward, inverse, reconstruct"),
    ]
    for arguments, part in cases:
        text = refused(lambda arguments=arguments: observe(STUDENT, *arguments))
        assert part in text, (part, text)


def test_values_outside_the_training_data_are_reported() -> None:
    mean = STUDENT.normaliser.mean[0]
    std = STUDENT.normaliser.std[0]
    inside = observe(STUDENT, "forward", np.full((6, 6), mean + 4.9 * std))
    assert warnings_for(STUDENT, inside) == []
    far = np.full((6, 6), mean)
    far[2, 3] = mean - 9 * std
    below, line = warnings_for(STUDENT, observe(STUDENT, "forward", far))
    assert below.startswith("warning: permeability: 1 of 36 known values are not above 0")
    low = mean - 5 * std
    high = mean + 5 * std
    for part in ("warning: permeability: 1 of 36", f"{low:.4g} to {high:.4g}", f"the farthest is {mean - 9 * std:.4g}"):
        assert part in line


def test_values_that_the_equation_does_not_allow_are_reported() -> None:
    """Even within five standard deviations of the mean, where a negative permeability may lie."""
    student = replace(STUDENT, normaliser=Normaliser((7.5, 0.01), (4.5, 0.006)))
    values = np.full((6, 6), 7.5)
    values[1, 4] = -2.0
    (line,) = warnings_for(student, observe(student, "forward", values))
    assert line.startswith("warning: permeability: 1 of 36 known values are not above 0 (the least is -2)")
    assert (
        warnings_for(student, observe(student, "inverse", np.full((6, 6), -0.005))) == []
    )  # a pressure may be negative


def test_each_observation_has_its_own_tolerance() -> None:
    """So that an answer does not depend on the other observations of the same call."""
    masks = np.stack([np.ones_like(MASK), MASK])
    both = observe(STUDENT, "reconstruct", {"pressure": np.stack([U, U])}, masks)
    for n, mask in enumerate(masks):
        alone = observe(STUDENT, "reconstruct", {"pressure": U}, mask)
        assert torch.equal(both.sigma_NC[n], alone.sigma_NC[0]) and torch.equal(both.whole_NC[n], alone.whole_NC[0])
    assert both.sigma_NC[0, 1] > both.sigma_NC[1, 1]
