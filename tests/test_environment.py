"""cluster.environment: what workers and actors get, and names and values that are refused in one line."""

from __future__ import annotations

import pytest

from pidscale.app.compose import settings_from
from pidscale.config import ClusterSettings, Settings, UserError, from_plain, to_plain
from pidscale.environment import KEEP_MEMORY, RETURN_MEMORY, actor_environment, worker_environment
from pidscale.limits import check
from pidscale.run.phases import signature


def test_workers_and_actors_get_what_is_set_beside_what_pidscale_sets(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    given = {"NCCL_IB_HCA": "mlx5", "NCCL_IB_GID_INDEX": 3, "AWS_SECRET_ACCESS_KEY": None}
    wanted = {"NCCL_IB_HCA": "mlx5", "NCCL_IB_GID_INDEX": "3", "AWS_SECRET_ACCESS_KEY": "secret"}
    settings = from_plain(ClusterSettings, {"environment": given, "cpus_per_worker": 4})
    assert actor_environment(settings) == wanted | {"OMP_NUM_THREADS": "4"}
    large = wanted | {"OMP_NUM_THREADS": "4", "DS_ACCELERATOR": "cpu"} | RETURN_MEMORY
    assert worker_environment(settings, 3 * 2**30) == large and "MALLOC_TOP_PAD_" not in large
    assert worker_environment(settings) == wanted | {"OMP_NUM_THREADS": "4", "DS_ACCELERATOR": "cpu"} | KEEP_MEMORY
    assert worker_environment(from_plain(ClusterSettings, {"use_gpu": True})) == {"OMP_NUM_THREADS": "1"}
    assert "secret" not in str(to_plain(settings))  # which files of the run hold


def test_the_command_line_sets_variables_and_a_run_may_go_on_with_others():
    words = ["cluster.environment.GLOO_SOCKET_IFNAME=eth0", "+cluster.environment.NCCL_IB_GID_INDEX=3", "cluster=cpu1"]
    settings = settings_from(words)
    assert settings.cluster.environment == {"GLOO_SOCKET_IFNAME": "eth0", "NCCL_IB_GID_INDEX": 3}
    for phase in ("teacher", "distill"):
        assert signature(phase, settings, {}) == signature(phase, settings_from(["cluster=cpu1"]), {})


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("OMP_NUM_THREADS=4", "set by cluster.cpus_per_worker"),
        ("DS_ACCELERATOR=cuda", "set by cluster.use_gpu"),
        ("MALLOC_ARENA_MAX=2", "set by pidscale"),
        ("LOCAL_RANK=0", "set by Ray for each worker"),
        ("CUDA_VISIBLE_DEVICES=0", "set by Ray for each worker"),
        ("RAY_AUTH_TOKEN=abc", "set where Ray is started"),
        ("A-B=1", "expected the name of an environment variable"),
        ("A=true", "expected one line of text"),
        ("A=1.5", "such as 'cluster.environment.A=\"1.5\"'"),
        ("A.B=1", "expected one line of text"),
        ("NO_SUCH_NAME_HERE=null", "export it first"),
    ],
)
def test_other_names_and_values_are_refused_in_one_line(argument, words, monkeypatch):
    monkeypatch.delenv("NO_SUCH_NAME_HERE", raising=False)
    with pytest.raises(UserError, match=r"^cluster\.environment\.") as error:
        settings_from([f"cluster.environment.{argument}"])
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["2X", "", "A B", "A=B", "Ä"])
def test_a_file_of_settings_cannot_name_what_is_no_variable(name):
    settings = from_plain(Settings, {"cluster": {"environment": {name: "1"}}})
    with pytest.raises(UserError, match=r"^cluster\.environment\..*: expected the name of an environment variable"):
        check(settings)
