"""launch/k8s: the manifests ask for what pidscale knows and have room for it; the image is built from files that exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import ray
import yaml

from pidscale.app.compose import settings_from
from pidscale.app.parser import parse
from pidscale.cluster.room import Need
from tests.scripts import LAUNCH, ROOT

FOLDER = LAUNCH / "k8s"


@pytest.fixture(scope="module")
def manifest():
    """The objects of both files by their kind."""
    documents = [yaml.safe_load((FOLDER / name).read_text()) for name in ("storage.yaml", "rayjob.yaml")]
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def settings(manifest):
    """The settings of the entry point, which its own command has checked."""
    command, *words = shlex.split(manifest["RayJob"]["spec"]["entrypoint"])
    assert command in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    asked = parse(words)
    return settings_from(asked.words, asked.config, asked.phases)


def _groups(manifest):
    """The pods of head and workers."""
    cluster = manifest["RayJob"]["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_the_kinds_and_versions_are_known(manifest):
    assert {kind: one["apiVersion"] for kind, one in manifest.items()} == {
        "PersistentVolumeClaim": "v1",
        "RayJob": "ray.io/v1",
    }
    spec = manifest["RayJob"]["spec"]
    known = {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit", "submitterConfig"}
    assert spec.keys() == known | {"rayClusterSpec"} and spec["shutdownAfterJobFinishes"] is True
    cluster = spec["rayClusterSpec"]
    assert cluster.keys() == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert f"ray=={cluster['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["authOptions"]["secretName"] in (ROOT / "docs" / "clusters.md").read_text()


def test_all_pods_share_the_folders_of_the_run(manifest, settings):
    claim = manifest["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in _groups(manifest):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        (volume,) = pod["volumes"]
        (mount,) = container["volumeMounts"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert volume["name"] == mount["name"] and pod["securityContext"]["runAsNonRoot"]
        for path in (settings.run.folder, settings.data.path):
            assert Path(path).is_relative_to(mount["mountPath"])
    assert len({group["template"]["spec"]["containers"][0]["image"] for group in _groups(manifest)}) == 1


def test_the_workers_fit_the_pods(manifest, settings):
    cluster = settings.cluster
    need = Need.of(cluster, {"cluster.workers": cluster.workers})
    room = 0
    for group in _groups(manifest)[1:]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        has = {"CPU": float(limits["cpu"]), "GPU": float(limits["nvidia.com/gpu"])}
        room += group["replicas"] * need.fits(has)
    assert room == cluster.workers


def test_the_variables_of_the_pods_are_read_by_ray(manifest):
    package = Path(ray.__file__).parent
    source = "".join(path.read_text() for path in (package / "dashboard/modules/job").glob("*.py"))
    server = (package / "core/src/ray/gcs/gcs_server").read_bytes()  # its own settings, without RAY_
    for group in _groups(manifest):
        for variable in group["template"]["spec"]["containers"][0].get("env", []):
            name = variable["name"]
            assert f'"{name}"' in source or name.removeprefix("RAY_").encode() in server, variable


def test_the_image_is_built_from_files_of_the_checkout():
    text = (FOLDER / "Dockerfile").read_text()
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (.*)$", text, re.MULTILINE)]
    names = [name for line in copied for name in line]
    assert {"constraints.txt", "pyproject.toml", "setup.py", "configs", "pidscale"} <= set(names)
    assert not [name for name in names if not (ROOT / name).exists()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"]} <= set(names)  # setuptools reads them
    (extras,) = re.findall(r"'\.\[(.*)\]'", text)
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    assert text.count("-c constraints.txt") == text.count("pip install") and re.search(
        r"^USER [1-9]", text, re.MULTILINE
    )
