"""Ray tasks make the same set as one process, and an error in a task is one line."""

import pytest

from pidscale.config import UserError
from pidscale.make import make
from pidscale.make.make import make_shard_set
from pidscale.pde.darcy import Darcy

PDE = Darcy()


def run(root, **settings):
    arguments = {"grid": PDE.grid(17), "seed": 5, "samples_per_shard": 4} | settings
    return make_shard_set(PDE, root, {"train": 10, "test": 3}, **arguments)


@pytest.mark.slow
def test_ray_makes_the_same_bytes_and_reports_errors_in_one_line(ray_cluster, tmp_path):
    seen = []
    run(tmp_path / "many", in_flight=2, progress=lambda done, total: seen.append((done, total)))
    run(tmp_path / "one", parallel=False)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "many" / path.name).read_bytes()
    assert seen[-1] == (13, 13) and len(seen) == 4

    jobs = make._plan(PDE, PDE.grid(17), str(tmp_path / "nowhere"), 5, {"train": 4}, 4)  # no such folder on that host
    with pytest.raises(UserError) as error:
        list(make.run_in_ray(make.make_shard, jobs, 1))
    assert "train-00000.tar" in str(error.value) and "\n" not in str(error.value)
