"""A generator loaded from its folder: its samples, the errors of wrong arguments and damaged files, and what it imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pidscale
from pidscale.config import UserError
from pidscale.generator import artifact
from pidscale.generator.load import load_student, load_teacher, outline_teacher
from pidscale.generator.student import Student
from tests.generator.known import refused
from tests.generator.made import POINTS, write_generator

HEAVY = ("ray", "deepspeed", "hydra", "omegaconf", "webdataset", "scipy", "matplotlib", "xxhash", "tensorboard")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_generator(tmp_path_factory.mktemp("made") / "student")


@pytest.fixture(scope="module")
def student(folder: Path) -> Student:
    return load_student(folder)


@pytest.fixture(scope="module")
def truths(student: Student) -> dict[str, torch.Tensor]:
    pytest.importorskip("scipy")  # where the wheel alone is installed (tests/app/test_wheel.py), no data are made
    made = np.stack([student.pde.sample(0, i, student.grid)[0] for i in range(3)]).astype(np.float32)
    return student.split(torch.from_numpy(made))


def test_samples_are_physical_fields_by_name(student: Student) -> None:
    fields = student.sample(n=5, seed=3)
    assert list(fields) == ["permeability", "pressure"] == student.channels
    assert all(f.shape == (5, POINTS, POINTS) and f.dtype == torch.float32 for f in fields.values())
    assert all(f.std(dim=0).min() > 0 for f in fields.values())
    # in physical units: around the mean of the data, not around 0
    assert abs(float(fields["permeability"].mean()) - 7.5) < 9 and fields["pressure"].abs().max() < 0.2


def test_a_sample_depends_on_seed_and_number_alone(student: Student) -> None:
    ten = student.sample(n=10, seed=3)
    for name, fields in student.sample(n=10, seed=3).items():
        assert torch.equal(fields, ten[name])
    for other in (student.sample(n=4, seed=3), student.sample(n=10, seed=3, batch=3), student.sample(7, 3, batch=1)):
        for name, fields in other.items():
            assert (fields - ten[name][: len(fields)]).abs().max() <= 1e-6 * ten[name].abs().max()
    assert (student.sample(n=10, seed=4)["pressure"] - ten["pressure"]).abs().max() > 1e-4


def test_a_sample_is_one_call_at_the_top_level(student: Student) -> None:
    levels = []
    hook = student.denoiser.register_forward_pre_hook(lambda module, given: levels.append(given[1]))
    student.sample(n=3, batch=3)
    hook.remove()
    assert len(levels) == 1 and levels[0].tolist() == [80.0] * 3


def test_the_residual_distinguishes_truths_from_null_solutions(
    student: Student, truths: dict[str, torch.Tensor]
) -> None:
    floor = student.residual(truths)
    assert floor["l2"].shape == (3,) and floor["l2"].max() < 1e-4 and floor["dual"].max() < 1e-4
    assert floor["boundary"].max() == 0
    nothing = student.residual({**truths, "pressure": torch.zeros(3, POINTS, POINTS)})
    for norm in ("l2", "dual"):
        torch.testing.assert_close(nothing[norm], torch.ones(3))
    from_numpy = student.residual({name: f.numpy() for name, f in truths.items()})
    assert torch.equal(from_numpy["l2"], floor["l2"])


@pytest.mark.parametrize("network", ["unet", "fno"])
def test_a_teacher_makes_the_calls_of_its_solver(tmp_path: Path, network: str) -> None:
    teacher = load_teacher(write_generator(tmp_path / "teacher", "teacher", network))
    calls = []
    hook = teacher.denoiser.register_forward_pre_hook(lambda module, given: calls.append(1))
    three = teacher.sample(n=2, steps=3)
    assert len(calls) == 5
    teacher.sample(n=2, steps=3, solver="euler")
    assert len(calls) == 8
    teacher.sample(n=2)
    hook.remove()
    assert len(calls) == 8 + 35
    assert all(f.isfinite().all() for f in three.values())


def test_impossible_requests_are_refused(student: Student, tmp_path: Path) -> None:
    assert "n=0" in refused(lambda: student.sample(n=0))
    assert "n='a'" in refused(lambda: student.sample(n="a"))
    assert f"n={10**20}" in refused(lambda: student.sample(n=10**20))
    assert "n=True" in refused(lambda: student.sample(n=True))
    fields = student.sample(n=2)
    assert "n=a dict: expected a whole number" in refused(lambda: student.sample(fields))
    assert "task=a dict: expected one of forward" in refused(lambda: student.posterior(fields))
    assert "seed=-1" in refused(lambda: student.sample(n=1, seed=-1))
    assert "seed='a'" in refused(lambda: student.sample(n=1, seed="a"))
    assert "batch=0" in refused(lambda: student.sample(n=3, batch=0))
    folder = write_generator(tmp_path / "teacher", "teacher")
    assert "holds a teacher, expected a student; load it with load_teacher" in refused(lambda: load_student(folder))
    other = write_generator(tmp_path / "student")
    assert "holds a student, expected a teacher; load it with load_student" in refused(lambda: load_teacher(other))
    teacher = load_teacher(folder)
    assert f"n={10**20}" in refused(lambda: teacher.sample(n=10**20, steps=1))
    assert "steps=0" in refused(lambda: teacher.sample(n=1, steps=0))
    assert "steps=1.5" in refused(lambda: teacher.sample(n=1, steps=1.5))
    assert "rk4" in refused(lambda: teacher.sample(n=1, steps=2, solver="rk4"))
    assert "device='foo'" in refused(lambda: load_student(tmp_path / "teacher", device="foo"))
    assert "device='mps'" in refused(lambda: load_student(tmp_path / "teacher", device="mps"))
    assert "device='cuda:99'" in refused(lambda: load_student(tmp_path / "teacher", device="cuda:99"))
    assert "device='meta'" in refused(lambda: load_student(tmp_path / "teacher", device="meta"))
    assert "None" in refused(lambda: load_student(None))


def test_wrong_fields_are_named(student: Student, truths: dict[str, torch.Tensor]) -> None:
    a = truths["permeability"]
    u = truths["pressure"]
    bad = u.clone()
    bad[1, 2, 3] = float("nan")
    assert "'pressure' is missing" in refused(lambda: student.residual({"permeability": a}))
    text = refused(lambda: student.residual({"permeability": a, "pressure": u[:, :8]}))
    assert "fields['pressure']" in text and "(3, 8, 16)" in text and "[n, 16, 16]" in text
    assert "fields['permeability']" in refused(lambda: student.residual({"permeability": a[0], "pressure": u[0]}))
    text = refused(lambda: student.residual({"permeability": a, "pressure": bad}))
    assert "fields['pressure']" in text and "finite" in text
    assert "[3, 2]" in refused(lambda: student.residual({"permeability": a, "pressure": u[:2]}))
    assert "[n, 16, 16]" in refused(lambda: student.residual({"permeability": a[:0], "pressure": u[:0]}))
    assert "expected a dict" in refused(lambda: student.residual(torch.stack([a, u], dim=1)))
    for odd in (
        u.to_sparse(),
        u.to("meta"),
        u.to(torch.complex64),
        u.numpy().astype(np.complex128),
        np.full((3, 16, 16), "x"),
        [[1.0], [1.0, 2.0]],
    ):
        assert "fields['pressure']: not an array of real" in refused(
            lambda odd=odd: student.residual({"permeability": a, "pressure": odd})
        )


def test_a_residual_beyond_its_precision_is_refused(student: Student, truths: dict[str, torch.Tensor]) -> None:
    huge = {name: 1e30 * field for name, field in truths.items()}
    assert "float64" in refused(lambda: student.residual(huge))
    assert student.residual({name: field.double() for name, field in huge.items()})["l2"].min() > 1e30


def test_arrays_of_any_layout_give_the_same_residual(student: Student, truths: dict[str, torch.Tensor]) -> None:
    arrays = {name: field.numpy() for name, field in truths.items()}
    expected = student.residual(arrays)["l2"]
    for other in (lambda x: x.astype(">f4"), lambda x: x[::-1].copy()[::-1], lambda x: x.tolist(), np.asfortranarray):
        found = student.residual({name: other(array) for name, array in arrays.items()})["l2"]
        torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-6)


def edit(folder: Path, change) -> None:
    """Change a card and give it a valid checksum."""
    card = artifact.read_plain(folder)
    change(card)
    artifact.write_plain(folder, card)


def by_hand(folder: Path, change) -> None:
    """Change a card and keep its checksum."""
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(bytes(data))


def unreadable(path: Path, folder: Path) -> None:
    """Replace a file by one that exists but cannot be read: the memory of a process at address 0."""
    if path.name != "card.json":
        edit(folder, lambda card: card["weights"].update(bytes=0))
    path.unlink()
    path.symlink_to("/proc/self/mem")


DAMAGE = {  # what is done to a folder, and what the error says besides its name
    "no folder": (lambda f: f.rename(f.with_name("elsewhere")), ["no such folder"]),
    "no card": (lambda f: (f / "card.json").unlink(), ["card.json", "missing"]),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), ["weights.safetensors", "missing"]),
    "truncated weights": (
        lambda f: (f / "weights.safetensors").write_bytes((f / "weights.safetensors").read_bytes()[:-100]),
        ["weights.safetensors", "truncated"],
    ),
    "longer weights": (
        lambda f: (f / "weights.safetensors").write_bytes((f / "weights.safetensors").read_bytes() + b"0"),
        ["weights.safetensors", "longer"],
    ),
    "a folder of weights": (
        lambda f: ((f / "weights.safetensors").unlink(), (f / "weights.safetensors").mkdir()),
        ["weights.safetensors", "is a folder"],
    ),
    "far longer weights": (lambda f: os.truncate(f / "weights.safetensors", 2**40), ["1099511627776 bytes", "longer"]),
    "a huge card": (lambda f: os.truncate(f / "card.json", 2**40), ["card.json", "1099511627776 bytes"]),
    "weights that cannot be read": (lambda f: unreadable(f / "weights.safetensors", f), ["Input/output error", "disk"]),
    "a card that cannot be read": (lambda f: unreadable(f / "card.json", f), ["Input/output error", "disk"]),
    "a size that is no number": (
        lambda f: edit(f, lambda c: c["weights"].update(bytes="many")),
        ["'weights.bytes'", "many"],
    ),
    "flipped bit": (lambda f: flip(f / "weights.safetensors"), ["weights.safetensors", "checksum"]),
    "truncated card": (lambda f: (f / "card.json").write_text('{"version": 1,'), ["card.json", "JSON"]),
    "binary card": (lambda f: (f / "card.json").write_bytes(b"\xff\xfe\x00"), ["card.json", "JSON"]),
    "deeply nested card": (lambda f: (f / "card.json").write_text("[" * 100000), ["card.json", "JSON"]),
    "a card of many levels": (
        lambda f: edit(f, lambda c: c.update(more=json.loads("[" * 200 + "]" * 200))),
        ["card.json", "nested too deeply"],
    ),
    "card is a list": (lambda f: (f / "card.json").write_text("[]"), ["card.json", "version"]),
    "newer version": (lambda f: edit(f, lambda c: c.update(version=2)), ["card.json", "version 2", "expected 1"]),
    "edited mean": (lambda f: by_hand(f, lambda c: c["normaliser"].update(mean=[7.5, 0.006])), ["card.json", "edited"]),
    "edited kind": (lambda f: by_hand(f, lambda c: c.update(kind="teacher")), ["card.json", "edited"]),
    "edited grid": (lambda f: by_hand(f, lambda c: c["grid"].update(extent=[1.0, 2.0])), ["card.json", "edited"]),
    "edited metrics": (lambda f: by_hand(f, lambda c: c["metrics"].update(train_seconds=1)), ["card.json", "edited"]),
    "edited checksum": (lambda f: by_hand(f, lambda c: c.update(sha256="0" * 64)), ["card.json", "edited"]),
    "no checksum": (lambda f: by_hand(f, lambda c: c.pop("sha256")), ["card.json", "'sha256'"]),
    "zero std": (lambda f: edit(f, lambda c: c["normaliser"].update(std=[0.0, 1.0])), ["std above 0"]),
    "huge std": (lambda f: edit(f, lambda c: c["normaliser"].update(std=[1e300, 1.0])), ["below 1e+30"]),
    "huge sigma_max": (lambda f: edit(f, lambda c: c["noise"].update(sigma_max=1e300)), ["sigma_max=1e+300"]),
    "a network level that is text": (lambda f: edit(f, lambda c: c.update(told="abc")), ["'told'", "abc"]),
    "a network level above sigma_max": (
        lambda f: edit(f, lambda c: c.update(told=1e9)),
        ["'told' is 1000000000.0", "to 80"],
    ),
    "no extent": (lambda f: edit(f, lambda c: c["grid"].update(extent=[0, 1])), ["'grid.extent' is 0"]),
    "half a point": (
        lambda f: edit(f, lambda c: c["grid"].update(shape=[16.5, 16])),
        ["'grid.shape' is 16.5", "whole number"],
    ),
    "negative sigma_max": (lambda f: edit(f, lambda c: c["noise"].update(sigma_max=-80.0)), ["sigma_max"]),
    "missing key": (lambda f: edit(f, lambda c: c.pop("normaliser")), ["card.json", "'normaliser'"]),
    "key of another type": (lambda f: edit(f, lambda c: c.update(channels=2)), ["card.json", "'channels'"]),
    "unknown kind": (lambda f: edit(f, lambda c: c.update(kind="critic")), ["card.json", "'critic'"]),
    "other width": (lambda f: edit(f, lambda c: c["architecture"].update(width=16)), ["do not fit", "size mismatch"]),
    "unknown network": (lambda f: edit(f, lambda c: c["architecture"].update(kind="vit")), ["'vit'"]),
    "unknown equation": (lambda f: edit(f, lambda c: c["equation"].update(name="euler")), ["'euler'"]),
    "odd parameters": (lambda f: edit(f, lambda c: c["equation"].update(params=[1])), ["'equation.params' is list"]),
    "no sigma_data": (lambda f: edit(f, lambda c: c["noise"].pop("sigma_data")), ["sigma_data"]),
    "one mean for two channels": (lambda f: edit(f, lambda c: c["normaliser"].update(mean=[1.0])), ["normaliser"]),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_line_that_names_the_file(tmp_path: Path, name: str) -> None:
    folder = write_generator(tmp_path / "student")
    load_student(folder)
    damage, words = DAMAGE[name]
    damage(folder)
    text = refused(lambda: load_student(folder))
    assert str(folder) in text and all(word in text for word in words), text


def test_an_empty_path_is_not_the_current_folder(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    assert "'': no such folder" in refused(lambda: load_student(""))
    assert load_student(".").card.kind == "student"
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder / "empty")
    assert f"{folder}/empty/card.json: missing" in refused(lambda: load_student("."))


@pytest.mark.parametrize("path", ["x" * 5000, "x/" * 2500, "a\0b"], ids=["name", "path", "zero"])
def test_an_impossible_path_is_one_short_line(path: str) -> None:
    message = refused(lambda: load_student(path))
    assert "no such folder" in message and len(message) < 400


def test_an_address_is_not_a_folder() -> None:
    for load in (load_student, load_teacher, outline_teacher):
        with pytest.raises(UserError, match=r"s3://bucket/student: an address of a store.*download the folder first"):
            load("s3://bucket/student")


def test_an_outline_reads_the_card_alone(tmp_path: Path) -> None:
    """A driver has no memory for the weights of a large teacher: it sees their size, and workers see their bytes."""
    teacher = write_generator(tmp_path / "teacher", kind="teacher")
    whole = load_teacher(teacher)
    weights = teacher / artifact.WEIGHTS
    size = weights.stat().st_size
    with weights.open("wb") as file:
        file.truncate(size)
    outline = outline_teacher(teacher)
    assert outline.card == whole.card and outline.grid == whole.grid and outline.device.type == "meta"
    shapes = {name: p.shape for name, p in whole.denoiser.named_parameters()}
    assert {name: p.shape for name, p in outline.denoiser.named_parameters()} == shapes
    with pytest.raises(UserError, match="its checksum is not the one in the card"):
        load_teacher(teacher)
    weights.write_bytes(b"short")
    with pytest.raises(UserError, match=f"5 bytes, the card says {size}: truncated"):
        outline_teacher(teacher)
    with pytest.raises(UserError, match="holds a student, expected a teacher"):
        outline_teacher(write_generator(tmp_path / "student"))


def test_loading_and_sampling_need_torch_numpy_and_safetensors_only(folder: Path) -> None:
    script = (
        "import sys, pidscale\n"
        f"student = pidscale.load_student({str(folder)!r})\n"
        "fields = student.sample(n=2)\n"
        "assert student.residual(fields)['l2'].shape == (2,)\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    root = Path(pidscale.__file__).parent.parent
    result = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_the_package_offers_what_its_docstring_shows(folder: Path) -> None:
    assert pidscale.load_student(str(folder)).sample(n=1)["pressure"].shape == (1, POINTS, POINTS)
    assert pidscale.UserError is UserError
    assert set(pidscale.__all__) <= set(dir(pidscale))
    with pytest.raises(AttributeError, match="load_critic"):
        pidscale.load_critic  # noqa: B018
