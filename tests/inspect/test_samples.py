"""Wrong values, seeds, statistics and residuals are found even if all hashes and checksums agree."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from pidscale.inspect.show import describe_set
from pidscale.inspect.verify import verify
from pidscale.records import write
from pidscale.records.check import load_manifest
from tests.inspect.damage import TAR, findings, named, put, rewritten


@pytest.fixture
def copy(heat_shards, tmp_path):
    return shutil.copytree(heat_shards, tmp_path / "heat")


def test_values_that_are_not_finite_are_found(copy, monkeypatch):
    monkeypatch.setattr(write, "_check_sample", lambda *given: None)
    of = write.Stats.of
    monkeypatch.setattr(write.Stats, "of", staticmethod(lambda fields: of(np.nan_to_num(fields))))

    def change(n, fields, meta):
        fields[2, 3, 4] = np.nan if n == 19 else fields[2, 3, 4]
        return fields, meta

    rewritten(copy, change)
    monkeypatch.undo()
    (found,) = findings(copy)
    assert all(word in found for word in (TAR, "sample 00000019", "temperature_02", "not finite")), found


@pytest.mark.parametrize("key", ["mean", "std"])
def test_a_wrong_normaliser_is_found(copy, key):
    manifest = load_manifest(copy)
    normaliser = json.loads(json.dumps(manifest.normaliser))
    normaliser[key][1] += 2e-5
    put(copy, manifest, normaliser=normaliser)
    (found,) = findings(copy)
    assert all(word in found for word in ("manifest.json", f"normaliser.{key}", "temperature_01")), found


@pytest.mark.parametrize("floors", [{}, {"train": 3}, {"train": {"l2": "small"}}])
def test_wrong_floors_are_found(copy, floors):
    manifest = put(copy, load_manifest(copy), truth_residual=floors)
    found = findings(copy)
    for split in ("train", "test"):
        named(found, f"truth_residual of '{split}': max_l2 is None")
    assert not floors or "expected a number for each norm" in "\n".join(describe_set(manifest, "x"))


def test_a_wrong_stored_residual_is_found(copy):
    def change(n, fields, meta):
        if n == 20:
            meta["residual"]["l2"] *= 10
        return fields, meta

    rewritten(copy, change)
    found = findings(copy)
    named(found, TAR, "sample 20: residual l2")
    named(found, "manifest.json", "truth_residual of 'train': l2")


def test_fields_that_do_not_match_their_residual_are_found(copy):
    """Hashes, checksums and statistics all agree; only the residual shows the change."""

    def change(n, fields, meta):
        if n == 20:
            fields[3] *= 1.001
        return fields, meta

    rewritten(copy, change)
    manifest = load_manifest(copy)
    stats = [json.loads((copy / f"train-0000{i}.index.json").read_text())["stats"] for i in range(3)]
    whole = write.merge_stats([write.Stats(s["count"], s["mean"], s["m2"]) for s in stats])
    put(copy, manifest, normaliser={"mean": list(whole.mean), "std": list(whole.std)})
    found = findings(copy)
    assert len(found) == 2
    named(found, TAR, "sample 20: residual dual")
    named(found, TAR, "sample 20: residual l2")


def test_overlapping_and_repeated_seeds_are_found(copy):
    manifest = load_manifest(copy)
    splits = manifest.splits | {"test": replace(manifest.splits["test"], seeds=(40, 56))}
    put(copy, manifest, splits=splits)
    found = findings(copy)
    named(found, "overlap", "'train'", "'test'")
    assert len([line for line in found if "test-00000.tar: sample" in line and "says 40 to 55" in line]) == 16
    put(copy, manifest)
    rewritten(copy, lambda n, fields, meta: (fields, meta | {"seed": 3} if n == 30 else meta))
    named(findings(copy), TAR, "sample 30", "seed 3 is that of train sample 3")


def test_an_unknown_equation_is_a_note(copy, monkeypatch):
    manifest = load_manifest(copy)
    (copy / "request.json").unlink()
    put(copy, manifest, equation="nowhere:Mine", request={})
    report = verify(copy)
    assert report.findings == [] and report.samples == 64
    named(report.notes, "residuals not checked", "'nowhere:Mine'", "no file decides what is imported")
    named(report.notes, "request.json", "missing")
    assert "nowhere" not in sys.modules


def test_many_wrong_residuals_are_counted(copy):
    manifest = load_manifest(copy)
    put(copy, manifest, params=manifest.params | {"duration": 2.0}, request={})
    found = findings(copy)
    assert len([line for line in found if ": residual l2 is " in line]) < 20
    named(found, "residuals of split 'train': and ", "more findings")
