"""What a run will need, counted before it starts, and settings that cannot work, refused there."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pidscale.config import ClusterSettings, ModelSettings, Settings, UserError
from pidscale.engine.plan import check_model, model_description, plan_text
from pidscale.models import build_denoiser


def settings(kind: str = "unet", size: str = "tiny", stage: int = 1, deepspeed: Any = None, **change: Any) -> Settings:
    cluster = ClusterSettings(workers=4, zero_stage=stage, deepspeed=deepspeed or {})
    return Settings(model=ModelSettings(kind, size, change), cluster=cluster)


@pytest.mark.parametrize("kind", ["unet", "fno"])
def test_parameters_are_counted_as_they_are_built(kind: str) -> None:
    s = settings(kind, width=8)
    description = model_description(s, 3)
    assert description["channels"] == 3 and description["width"] == 8
    built = sum(p.numel() for p in build_denoiser(description).parameters())
    assert check_model(s, description, (32, 32)) == built


def test_a_billion_parameters_are_counted_without_being_made() -> None:
    s = settings(size="xl")
    assert check_model(s, model_description(s, 2), (64, 64)) > 1e9


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (dict(kind="vit"), "model.kind='vit'"),
        (dict(size="huge"), "model.size='huge'"),
        (dict(modes=3), "model.change.modes"),
    ],
)
def test_an_unknown_network_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        model_description(settings(**given), 2)


@pytest.mark.parametrize(
    "change", [{"width": 17}, {"width": "wide"}, {"multipliers": 3}, {"width": 104, "attention_levels": 3}]
)
def test_values_that_build_no_network_are_one_line(change: dict[str, Any]) -> None:
    s = settings(**change)
    with pytest.raises(UserError) as raised:
        check_model(s, model_description(s, 2), (32, 32))
    assert str(raised.value).startswith("model.change") and "\n" not in str(raised.value)


def test_a_grid_that_does_not_halve_is_refused() -> None:
    s = settings()
    with pytest.raises(UserError, match=r"33 x 33 points, this unet needs multiples of 4; model=fno_tiny"):
        check_model(s, model_description(s, 2), (33, 33))
    f = settings("fno")
    assert check_model(f, model_description(f, 2), (33, 33)) > 0


def test_the_deepspeed_section_is_checked_before_a_worker_starts() -> None:
    s = settings(deepspeed={"fp16": {"enabled": True}})
    with pytest.raises(UserError, match=r"cluster\.deepspeed\.fp16"):
        check_model(s, model_description(s, 2), (32, 32))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"reduce_bucket_size": "abc"}, "reduce_bucket_size: Input should be a valid integer"),
        ({"reduce_bucket_size": -1}, "reduce_bucket_size: "),
        ({"foo": 1}, "foo: Extra inputs are not permitted"),
        ({"offload_optimizer": {"device": "tape"}}, "offload_optimizer.device: "),
    ],
)
def test_deepspeed_itself_is_asked_about_its_zero_section(section: dict[str, Any], words: str) -> None:
    s = settings(deepspeed={"zero_optimization": section})
    before = os.environ.get("DS_ACCELERATOR")
    with pytest.raises(UserError) as raised:
        check_model(s, model_description(s, 2), (32, 32))
    text = str(raised.value)
    assert text.startswith(f"cluster.deepspeed.zero_optimization.{words}") and "\n" not in text, text
    assert os.environ.get("DS_ACCELERATOR") == before


def test_the_plan_says_sizes_by_stage() -> None:
    s = settings(stage=2)
    text = plan_text(model_description(s, 2), s.cluster, 1 << 20)
    assert text.startswith("unet of width ") and "1.05 M parameters" in text
    assert "4 workers" in text and "uses stage 2" in text
    for piece in ("stage 0 16.0 MiB", "stage 1 10.0 MiB", "stage 2 7.0 MiB", "stage 3 4.0 MiB"):
        assert piece in text
    assert "stage 0 16.0 GiB" in plan_text(model_description(s, 2), s.cluster, 1 << 30)
