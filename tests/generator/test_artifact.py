"""The files of a generator: the card is written last, and its metrics can be replaced."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from pidscale.config import UserError
from pidscale.generator import artifact
from pidscale.generator.card import Metrics
from tests.generator.made import write_generator


def test_the_card_describes_the_file_of_weights(tmp_path: Path) -> None:
    folder = write_generator(tmp_path / "student")
    assert sorted(p.name for p in folder.iterdir()) == ["card.json", "weights.safetensors"]
    card = json.loads((folder / "card.json").read_text())
    data = (folder / "weights.safetensors").read_bytes()
    assert card["weights"] == {
        "file": "weights.safetensors",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    assert card["version"] == 1 and card["grid"]["shape"] == [16, 16] and card["noise"]["sigma_max"] == 80
    assert [c["name"] for c in card["channels"]] == ["permeability", "pressure"]


def test_weights_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder = write_generator(tmp_path / "student")
    weights = {"a": torch.randn(3, 4).T, "b": torch.randn(2, 2, 2)[:, 0]}  # neither is contiguous
    card = artifact.read_card(folder)
    artifact.write(folder, weights, card)
    read = artifact.read_weights(folder, artifact.read_card(folder))
    assert read.keys() == weights.keys() and all(torch.equal(read[k], weights[k]) for k in weights)


def test_new_metrics_keep_everything_else(tmp_path: Path) -> None:
    folder = write_generator(tmp_path / "student")
    before = artifact.read_plain(folder)
    artifact.update_metrics(folder, Metrics(report={"swd": 0.1}))
    after = artifact.read_plain(folder)
    assert after.pop("metrics") == {"report": {"swd": 0.1}} and before.pop("metrics") == {"train_seconds": 1.5}
    assert after.pop("sha256") != before.pop("sha256")
    assert after == before and artifact.read_weights(folder, artifact.read_card(folder))


def test_a_folder_without_its_card_holds_no_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that is killed between the two files leaves no valid generator, because it writes the card last."""
    write = artifact.write_atomic

    def killed_at_card(path: Path, data: bytes) -> None:
        if path.name == "card.json":
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(artifact, "write_atomic", killed_at_card)
    with pytest.raises(KeyboardInterrupt):
        write_generator(tmp_path / "student")
    assert [p.name for p in (tmp_path / "student").iterdir()] == ["weights.safetensors"]
    with pytest.raises(artifact.UserError, match=r"card\.json: missing"):
        artifact.read_card(tmp_path / "student")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path, value: float) -> None:
    folder = write_generator(tmp_path / "student")
    card = artifact.read_card(folder)
    weights = dict(artifact.read_weights(folder, artifact.read_card(folder)))
    with pytest.raises(UserError, match=r"card\.json: metrics\.report\.l2 is not a finite number: the run diverged"):
        artifact.update_metrics(folder, Metrics(1.0, report={"l2": value}))
    name = next(iter(weights))
    with pytest.raises(UserError, match=f"{name} is not finite: the run diverged; nothing was written"):
        artifact.write(tmp_path / "other", {**weights, name: weights[name] * value}, card)
    assert not (tmp_path / "other").exists() and artifact.read_card(folder) == card
    plain = artifact.read_plain(folder)
    bare = {key: one for key, one in plain.items() if key != "sha256"} | {"metrics": {"l2": value}}
    text = json.dumps({**bare, "sha256": artifact._own_sha256(bare)})  # as a writer without this check would write it
    (folder / "card.json").write_text(text)
    with pytest.raises(UserError, match=r"metrics\.l2 is not a finite number"):
        artifact.read_card(folder)
