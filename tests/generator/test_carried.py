"""A student in other people's programs: compiled, pickled, copied, in workers of a DataLoader, under inference mode."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pidscale.generator.load import load_student
from pidscale.generator.student import Student
from tests.generator.made import write_generator


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    """A student with a head, a teacher and a varying parameter."""
    root = tmp_path_factory.mktemp("carried")
    write_generator(root / "student" / "teacher", "teacher", equation="heat")
    return load_student(
        write_generator(root / "student", equation="heat", teacher=root / "student" / "teacher", head=1)
    )


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], values) for name, values in wanted.items())


@pytest.mark.parametrize("carry", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_copy_makes_the_same_fields_and_has_weights_of_its_own(student: Student, carry, precision: str) -> None:
    student = student.with_precision(precision)
    wanted = student.sample(3, seed=1), student.sample(2, nfe=2), student.refine(1, steps=2).fields
    other = carry(student)
    assert other.precision == precision and other.card == student.card
    found = other.sample(3, seed=1), other.sample(2, nfe=2), other.refine(1, steps=2).fields
    assert all(map(same, found, wanted))
    with torch.no_grad():
        for own in other.denoiser.parameters():
            own.zero_()
    assert same(student.sample(3, seed=1), wanted[0]) and not same(other.sample(3, seed=1), wanted[0])


class Drawn(Dataset):
    """Samples of a student as training data of another model."""

    def __init__(self, student: Student) -> None:
        self.student = student

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: values[0] for name, values in self.student.sample(1, seed=index).items()}


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader_draw_the_same_fields(student: Student, start: str) -> None:
    data = Drawn(student)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which the test asks for
        loader = DataLoader(
            data, batch_size=2, num_workers=2, multiprocessing_context=multiprocessing.get_context(start)
        )
        batches = list(loader)
    wanted = [data[index] for index in range(4)]
    for name in wanted[0]:
        torch.testing.assert_close(
            torch.cat([batch[name] for batch in batches]), torch.stack([one[name] for one in wanted])
        )


def test_a_student_that_was_loaded_under_inference_mode_samples_and_searches(tmp_path: Path) -> None:
    folder = write_generator(tmp_path / "student", head=1)
    plain = load_student(folder)
    with torch.inference_mode():
        loaded = load_student(folder)
        inside = (
            loaded.sample(2),
            loaded.residual(loaded.sample(2)),
            loaded.module()(loaded.eps(range(2), 0), torch.zeros(2, 0)),
        )
        half = loaded.with_precision("bf16").sample(2)
        refined = loaded.refine(1, steps=2).fields
    assert same(refined, plain.refine(1, steps=2).fields)
    assert same(inside[0], plain.sample(2)) and same(inside[1], plain.residual(plain.sample(2)))
    assert torch.equal(inside[2], plain.module()(plain.eps(range(2), 0), torch.zeros(2, 0)))
    assert same(half, plain.with_precision("bf16").sample(2))
    assert same(loaded.refine(1, steps=2).fields, plain.refine(1, steps=2).fields)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("network", ["unet", "fno"])
def test_a_compiled_network_makes_the_same_fields(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one graph, which the compiler refuses to break."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    student = load_student(write_generator(tmp_path / "student", network=network, equation="heat", head=1))
    wanted = student.join(student.sample(3))
    torch._dynamo.reset()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    student.denoiser.compile(fullgraph=True)
    found = student.join(student.sample(3))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 1
    torch.testing.assert_close(found / wanted.abs().max(), wanted / wanted.abs().max(), rtol=0, atol=1e-5)
    assert student.with_precision("bf16").precision == "bf16"  # and its copy computes in 16 bits, not by that code
    half = student.join(student.with_precision("bf16").sample(3))
    assert 1e-5 < (half - wanted).norm() / wanted.norm() < 0.02
