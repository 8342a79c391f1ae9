"""Groups and arguments compose into checked settings; a user's mistake is one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from pidscale.app.compose import CONFIGS, groups, settings_from
from pidscale.app.settings_help import help_text, meanings
from pidscale.compare.settings import CompareSettings
from pidscale.config import LambdaSettings, Settings, UserError, to_flat, to_plain
from pidscale.distill.objectives.physics import active_weights
from pidscale.pde import build_pde
from pidscale.run.preflight import check_model, model_description

OPTIONS = sorted((path.parent.name, path.stem) for path in CONFIGS.glob("*/*.yaml") if path.parent.name != "compare")
CONFLICTS = {  # options that need another one beside them, and the two keys that the error names
    ("cluster", "gpu8"): (["distill.chunk=4"], ["distill.chunk=16", "cluster.workers"]),
    ("pde", "own"): (["pde.name=poisson"], ["pde.name", "Missing"]),
}


def refused(*arguments: str) -> str:
    with pytest.raises(UserError) as raised:
        settings_from(arguments)
    text = str(raised.value)
    assert text and "\n" not in text
    return text


def test_values_come_from_groups_files_and_arguments() -> None:
    made = settings_from(["model=fno_small", "teacher.lr=3e-4", "distill.weights.dual=0.5", "pde.params.low=2"])
    assert (made.model.kind, made.model.size, made.teacher.lr, made.distill.weights.dual) == ("fno", "small", 3e-4, 0.5)
    assert made.pde.params == {"variant": "two_phase", "low": 2}
    large = settings_from(["teacher=large"]).teacher
    assert large.warmup == yaml.safe_load((CONFIGS / "teacher/large.yaml").read_text())["warmup"] != made.teacher.warmup


def test_settings_that_files_leave_out_can_be_given() -> None:
    """Keys of the dataclasses need not stand in a file to be set, sections of free keys included."""
    made = settings_from(
        [
            "teacher.sigma_max=120",
            "cluster.deepspeed.zero_optimization.reduce_bucket_size=1000",
            "model.change.width=24",
            "evaluate.teacher_steps=[4]",
        ]
    )
    assert made.teacher.sigma_max == 120 and made.evaluate.teacher_steps == [4]
    assert made.cluster.deepspeed == {"zero_optimization": {"reduce_bucket_size": 1000}}
    assert made.model.change == {"width": 24}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes(group: str, option: str) -> None:
    beside, words = CONFLICTS.get((group, option), ([], []))
    if words:
        text = refused(f"{group}={option}")
        assert all(word in text for word in words), text
    made = settings_from([f"{group}={option}", *beside])
    plain = to_plain(made)
    plain = plain["distill"]["objective"] if group == "distill_pde" else plain[{"physics": "distill"}.get(group, group)]
    given = yaml.safe_load((CONFIGS / group / f"{option}.yaml").read_text()) or {}
    for key, value in given.items():
        if f"{group}.{key}" not in " ".join(beside):
            held = {k: plain[key][k] for k in value} if key in ("weights", "objective") else plain[key]
            assert held == value, key  # the option is what the settings hold, not a default
    pde = build_pde(made.pde.name, made.pde.params)
    description = model_description(made, len(pde.channels), len(pde.varying))
    assert check_model(made, description, pde.grid(made.pde.points).shape) > 1e5


@pytest.mark.parametrize("pde", sorted(path.stem for path in (CONFIGS / "pde").glob("*.yaml")))
def test_an_equation_brings_its_own_weights_and_its_head_to_every_objective(pde: str) -> None:
    path = CONFIGS / "physics" / f"{pde}.yaml"
    own = {"weights": to_plain(LambdaSettings())} | (yaml.safe_load(path.read_text()) if path.exists() else {})
    name = ["pde.name=heat"] if pde == "own" else []
    for objective, times in {"piddm": 1.0, "pid": 0.1, "dm": 2.0}.items():
        made = settings_from([f"pde={pde}", f"distill={objective}", *name]).distill
        active = active_weights(made)
        assert (made.head > 0) == (pde != "own") and made.head == own.get("head", 0)
        assert made.constraints == own.get("constraints", [])
        assert {key: active[key] for key in own["weights"]} == pytest.approx(
            {key: times * value for key, value in own["weights"].items()}
        )
        assert made.own.huber == (0.1 if (pde, objective) == ("darcy", "piddm") else 0.0)


def test_a_file_of_ones_own_that_is_no_yaml_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(CONFIGS, tmp_path / "configs")
    (tmp_path / "configs/physics/heat.yaml").write_text("# @package distill\nweights: {l2: [}\n")
    monkeypatch.setattr("pidscale.app.compose.CONFIGS", tmp_path / "configs")
    text = refused("pde=heat")
    assert "heat.yaml" in text and "line 2" in text


def test_what_an_equation_brings_gives_way_to_what_is_said() -> None:
    made = settings_from(["pde=poisson", "distill.weights.dual=0.5", "distill.objective.huber=0.2"]).distill
    assert (made.weights.dual, made.own.huber, made.weights.l2) == (0.5, 0.2, 0.002)
    assert settings_from(["pde=poisson", "physics=wave"]).distill.weights.dual == 0.1


@pytest.mark.parametrize("config", sorted(p.stem for p in CONFIGS.glob("*.yaml")))
def test_every_top_level_config_composes(config: str) -> None:
    assert settings_from([], config).run.resume == "auto"


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("teacher.stepz=3", ["teacher.stepz", "'steps'"]),
        ("teacher.steps=many", ["teacher.steps='many'", "expected a whole number"]),
        ("teacher.steps=0", ["teacher.steps=0"]),
        ("teacher.lr=nan", ["teacher.lr=nan"]),
        ("teacher.global_batch=1", ["teacher.global_batch=1", "cluster.workers=2"]),
        ("model=unet_giant", ["unet_giant", "unet_tiny"]),
        ("modle=unet_tiny", ["'modle'", "did you mean 'model'?"]),
        ("xyz=1", ["'xyz'", "groups: cluster, data"]),
        ("optimiser.name=adam", ["optimiser"]),
        ("run.name=${nothing}", ["nothing"]),
        ("teacher.steps=[1,", ["teacher.steps=[1,"]),
        ("evaluate", ["'evaluate'", "section.key=value"]),
        ("--help", ["--help"]),
        ("=3", ["=3"]),
        ("model=3", ["model=3"]),
        ("physics=poison", ["physics=poison", "no such choice", "burgers"]),
        ("physics=burger", ["did you mean 'burgers'"]),
        ("physics=null", ["physics=null", "burgers"]),
        ("~distill=piddm", ["~distill=piddm", "every setting needs a value"]),
        ("hydra.run.dir=/scratch/out", ["hydra.run.dir=/scratch/out", "run.folder"]),
        ("+hydra.job.chdir=true", ["+hydra.job.chdir=true", "Hydra itself"]),
        ("++hydra.output_subdir=null", ["Hydra itself"]),
        ("hydra/launcher=basic", ["Hydra itself"]),
        ("run.scratch=s3://bucket/runs", ["run.scratch=s3://bucket/runs", "a folder on a disk of each host"]),
        ("distill.teacher=gs://bucket/teacher", ["distill.teacher=gs://bucket/teacher", "must be a folder"]),
        ("data.cache=s3://bucket/cache", ["data.cache=s3://bucket/cache", "a folder on a disk of each host"]),
        ("run.folder=file:///scratch/runs", ["run.folder=file:///scratch/runs", "s3://BUCKET/runs"]),
        ("run.folder=s3:bucket/x", ["run.folder=s3:bucket/x:", "s3://BUCKET/runs"]),
        ("run.folder=s3//bucket/x", ["run.folder=s3//bucket/x:", "s3://BUCKET/runs"]),
        ("run.folder=S3://bucket/x", ["run.folder=S3://bucket/x:", "s3://BUCKET/runs"]),
        ("run.folder=s3://", ["run.folder=s3://:", "s3://BUCKET/runs"]),
        ("run.folder=s3:///x", ["run.folder=s3:///x:", "s3://BUCKET/runs"]),
        ("run.folder=s3:/bucket/x", ["run.folder=s3:/bucket/x:", "s3://BUCKET/runs"]),
        ("run.folder=https://example.org/x", ["run.folder=https://example.org/x:", "s3://BUCKET/runs"]),
        ("run.folder=memory://x", ["run.folder=memory://x:", "s3://BUCKET/runs"]),
        ("cluster..workers=2", ["cluster..workers=2:", "did you mean cluster.workers?"]),
        (".workers=2", [".workers=2:", "is not a setting"]),
        ("run.folder=~nobody_of_that_name/runs", ["run.folder=~nobody_of_that_name/runs", "no home folder"]),
    ],
)
def test_a_mistake_is_one_line(argument: str, words: list[str]) -> None:
    text = refused(argument)
    assert all(word in text for word in words), text


def test_help_lists_every_group_and_value() -> None:
    text = help_text("config")
    assert "model={fno_large," in text and "cluster={cpu1,gpu1,gpu8,local2}" in text
    assert '\n  run.name="run"  ' in text and "\n  teacher.sigma_max=null  " in text
    assert '\n  run.name="demo"  ' in help_text("demo")


def test_help_says_what_each_setting_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the docstrings: of the class, and of its base class for what it inherits."""
    monkeypatch.setenv("COLUMNS", "80")
    found = meanings(Settings) | meanings(CompareSettings, "compare")
    flat = [*to_flat(Settings()), *(f"compare.{name}" for name in to_flat(CompareSettings()))]
    assert list(found) == flat and all(len(text) > 10 and text[0].isupper() for text in found.values())
    assert found["teacher.lr"] == found["distill.lr"] == "Peak learning rate."
    assert found["cluster.min_workers"].endswith("0 stands for `workers`: the run then waits.")
    lines = help_text("compare").splitlines()
    assert f"{'  distill.lr=0.002':40}Peak learning rate." in lines
    assert all(len(line) <= 80 for line in lines if line.startswith(" " * 40))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of groups with a name of many kinds of characters: a choice beside ours, and one in place of ours."""
    folder = tmp_path / "my [own] groups=a, b's"
    (folder / "pde").mkdir(parents=True)
    (folder / "pde" / "mine.yaml").write_text("name: heat\nparams: {frames: 5}\npoints: 24\n")
    (folder / "pde" / "wave.yaml").write_text("name: wave\nparams: {}\npoints: 20\n")
    return folder


def test_a_folder_of_ones_own_comes_before_the_configs(own: Path) -> None:
    made = settings_from(["pde=mine"], config_dir=own)
    assert (made.pde.name, made.pde.points, made.pde.params) == ("heat", 24, {"frames": 5})
    assert settings_from(["pde=wave"], config_dir=own).pde.points == 20
    assert settings_from(["pde=wave"]).pde.points == 32
    assert settings_from([], config_dir=own) == settings_from([])
    assert {"mine", "wave", "darcy"} < set(groups(own)["pde"]) and "mine" not in groups()["pde"]
    assert "mine" in help_text("config", own)


def test_what_is_wrong_with_a_folder_of_ones_own_is_one_line(own: Path) -> None:
    (own / "pde" / "broken.yaml").write_text("name: [\n")
    (own / "pde" / "odd.yaml").write_text("nmae: heat\n")
    for argument, folder, words in (
        ("pde=heat", own / "nowhere", ["--config-dir=", "nowhere: no such folder"]),
        ("pde=heat", own / "pde" / "mine.yaml", ["mine.yaml: a file, expected a folder"]),
        ("pde=broken", own, ["pde=broken", "broken.yaml", "line 2"]),
        ("pde=odd", own, ["pde.nmae: unknown setting", "did you mean 'name'?"]),
        ("pde=min", own, ["pde=min: no such choice", "did you mean 'mine'?"]),
    ):
        with pytest.raises(UserError) as raised:
            settings_from([argument], config_dir=folder)
        assert all(word in str(raised.value) for word in words) and "\n" not in str(raised.value), raised.value


def test_a_command_checks_the_batches_of_its_own_phases_only() -> None:
    assert settings_from(["cluster=gpu8"], phases=("teacher",)).cluster.workers == 8
    assert settings_from(["distill.chunk=5", "teacher.global_batch=1"], phases=()).distill.chunk == 5
    with pytest.raises(UserError, match=r"distill\.chunk=16"):
        settings_from(["cluster=gpu8"], phases=("distill",))


@pytest.mark.parametrize("path", sorted((CONFIGS / "pde").glob("*.yaml")), ids=lambda path: path.stem)
def test_files_of_equations_give_no_parameter_its_own_default(path: Path) -> None:
    """What stands there counts as given by the user, and a file of data must agree with what is given."""
    given = yaml.safe_load(path.read_text())
    if path.stem != "own":
        usual = build_pde(given["name"]).params_dict()
        assert not [key for key, value in given["params"].items() if value == usual[key] and key != "variant"]


@pytest.mark.parametrize(
    "name",
    ["été (1), a=b", "{x}[y]", "it's", "back\\", "a\\'b", "a: b", "7", "true", "1e5", "--x", "日本", 'say "hi"', "a#b"],
)
def test_a_folder_may_have_any_name(name: str) -> None:
    words = ["data.path", "data.cache", "distill.teacher", "run.folder"]
    made = settings_from([f"{key}=/d/{name}" for key in words] + [f"run.name={name}"])
    found = [made.data.path, made.data.cache, made.distill.teacher, made.run.folder]
    assert found == [f"/d/{name}"] * 4 and made.run.name == name
    relative = settings_from([f"++data.path={name}", f"++run.folder={name}"])
    assert relative.data.path == relative.run.folder == name


def test_what_is_quoted_or_null_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEWHERE", "/far/away")
    made = settings_from(["data.path='a b'", 'run.name="c d"', "data.cache=null", "run.folder=${oc.env:SOMEWHERE}/é"])
    assert (made.data.path, made.run.name, made.data.cache, made.run.folder) == ("a b", "c d", None, "/far/away/é")


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["data.path", "data.cache", "distill.teacher", "distill.endpoints", "run.folder"]
    made = settings_from([f"{key}=~/sub/x" for key in words])
    found = [made.data.path, made.data.cache, made.distill.teacher, made.distill.endpoints, made.run.folder]
    assert found == [f"{tmp_path}/sub/x"] * 5
    assert settings_from(["data.path=./~", "run.name=~"]).data.path == "./~"  # names that only look like it
