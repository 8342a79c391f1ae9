"""What `make docs-check` does otherwise than a reader: smaller settings, commands that are not run, files that a reader has.

A rule names a page (or a pattern of pages) and a pattern of a command. Each has to meet a command; a command that needs
none of them needs no line here. Words of a rule come behind those of the page, which they replace where both set the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache

from tests.docs.blocks import Block, Command
from tests.s3 import BUCKET

NETWORK = "model.change.width=8 model.change.embedding=16"  # those of the choice of `model` beside this stay
TEACHER = (
    "teacher.steps=8 teacher.global_batch=8 teacher.micro_batch=4 teacher.evaluate_samples=4 teacher.evaluate_steps=3"
)
STUDENT = (
    "distill.steps=8 distill.global_batch=8 distill.micro_batch=4 distill.chunk=4 distill.solver_steps=3 "
    "distill.scale_steps=3 distill.scale_samples=8 distill.buffer_rows=3 distill.reuse=2"
)
REPORT = "evaluate.samples=8 evaluate.batch=8 evaluate.teacher_steps=[3]"
SHARDS = "data.train=64 data.test=32"
SHORTER = "it takes minutes to hours: smaller settings"
NO_GPU = "needs a GPU, and there is none: the CPU"
NAMES = "it has placeholders: names of this check"


@cache
def cuda() -> bool:
    """Whether there is a GPU here."""
    import torch

    return torch.cuda.is_available()


@dataclass(frozen=True)
class Rule:
    """Commands of a page.

    Attributes:
        page: Path of the page; `*` stands for any characters.
        part: A pattern of what such a command contains.
        add: Words behind the command.
        instead: Words of the command, and what stands in their place.
        why: Why a command is run otherwise, or not at all.
    """

    page: str
    part: str
    add: str = ""
    instead: tuple[tuple[str, str], ...] = ()
    why: str = SHORTER

    def meets(self, command: Command) -> bool:
        """Whether it is about a command."""
        return fnmatch(command.page, self.page) and re.search(self.part, command.text) is not None


ALL = f"{SHARDS} {NETWORK} {TEACHER} {STUDENT} {REPORT}"
ROWS = "compare.only=[truth,teacher-18,piddm]"

WITHOUT_GPU = (
    Rule("docs/one_gpu.md", r"benchmarks\.speed\.gpu", "--device cpu", why=NO_GPU),
    Rule("docs/one_gpu.md", "cluster=gpu1", instead=(("cluster=gpu1", "cluster=cpu1"),), why=NO_GPU),
)
OTHERWISE = (
    Rule("*", r"make demo\b", f"SETTINGS='{ALL}'"),
    Rule("*", r"pidscale demo\b", ALL),
    Rule("*", r"pidscale make-shards\b", SHARDS),
    Rule("*", r"pidscale train\b", f"{NETWORK} {TEACHER}"),
    Rule("*", r"pidscale (distill|make-endpoints)\b|launch/distill\.py", f"{NETWORK} {STUDENT}"),
    Rule("*", r"pidscale evaluate\b", f"{NETWORK} {REPORT}"),
    Rule("*", r"pidscale compare\b", f"{ALL} compare.fields=1"),
    Rule("*", "compare=quick", f"run.name=quick {ROWS}"),
    Rule("*", "compare=papers", f"run.name=papers {ROWS} compare.equations=[burgers] compare.seeds=[0]"),
    Rule(
        "*",
        "compare=fine",
        f"run.name=fine {ROWS} compare.equations=[darcy] \"compare.change.darcy=['pde.points=16']\"",
    ),
    Rule("*", "compare=variants", "run.name=variants compare.equations=[darcy] compare.seeds=[0]"),
    *(() if cuda() else WITHOUT_GPU),
    Rule("*", r"make install\b", why="the packages are there already: it installs none"),
    Rule(
        "docs/student.md",
        "org/name",
        why="needs an account of the Hugging Face hub: a server on this machine is the hub",
    ),
    Rule("docs/watching.md", "runs/NAME", instead=(("NAME", "demo"),), why=NAMES),
    Rule(
        "docs/data.md",
        "s3://bucket",
        instead=(("s3://bucket/", f"s3://{BUCKET}/"), ("/scratch/", "scratch/")),
        why=f"{NAMES}; a server on this machine is the store",
    ),
    Rule(
        "docs/clusters.md",
        "http://HEAD:8265",
        "&& ray stop",
        (
            ("ray job", "ray start --head && ray job"),
            ("HEAD", "127.0.0.1"),
            ("NAME", "far"),
            ("BUCKET", BUCKET),
            ("/scratch", "/tmp/ray/scratch"),
        ),
        f"{NAMES}; this machine is the cluster and has the store",
    ),
    Rule(
        "docs/clusters.md",
        "sbatch .* train ",
        f"cluster.use_gpu=false cluster.workers=2 cluster.cpus_per_worker=1 {NETWORK} {TEACHER}",
        (("NAME", "slurm"), ("/shared/", "$PWD/")),
        f"needs SLURM: a stand-in of sbatch runs the script on this machine, without a GPU; {SHORTER}",
    ),
    Rule("docs/clusters.md", "NCCL_IB_HCA=mlx5", "run.name=network", ((" ...", ""),), NAMES),
    Rule(
        "docs/converting.md",
        "source=FILE",
        instead=(("FILE", "darcy_train_16.pt"), ("FOLDER", "shards/first"), ("NAME", "darcy")),
        why=NAMES,
    ),
    Rule("shards/README.md", r"pidscale shards \S+ PATH", instead=((" PATH ", " shards/tiny "),), why=NAMES),
)
NOT_RUN = (
    Rule("*", "git clone", why="the checkout of this check is made so"),
    Rule("*", "make test", why="the tests, which are run by themselves"),
    Rule("CONTRIBUTING.md", "make docs-check", why="this check"),
    Rule("CONTRIBUTING.md", "-m pytest -q -m 'not slow'", why="the tests, which are run by themselves"),
    Rule("*", "pip install", why="it would change the .venv of this check, which has what the pages use"),
    Rule("docs/notebooks/README.md", "jupyter lab", why="needs JupyterLab, which serves a page until it is ended"),
    Rule("*", r"notebooks/run\.py (--pages|sensors)", why="tests run the notebooks, and hold their pages against them"),
    Rule("docs/clusters.md", "docker build", why="needs Docker and a registry"),
    Rule("docs/clusters.md", "kubectl", why="needs Kubernetes with KubeRay"),
)
# Commands that take a second or two and need neither Ray nor a run: tests run them too, and the Python of all pages but some.
QUICK = re.compile(r"(\S*/)?pidscale (sample|show|shards verify) (?!.*(runs/|org/|--html))")
LONG_PYTHON = ("docs/own_equation.md",)  # it needs a run
SERVED = {"tensorboard": re.compile(r"http://localhost:\d+/")}  # it does not end: the page that it serves is fetched
AGAIN = "No available agent to submit job, please try again later"  # of a Ray that has just started: it is asked again
NOT_ACTIVATED = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/first_run.md",
)  # a reader comes to other pages with .venv activated
OWN_RAY = ("docs/clusters.md", "docs/data.md")  # they start one, or workers need variables of the page
ON_A_HOST = ("docs/clusters.md",)  # `ray stop` ends every Ray of the account
STORE = ("docs/clusters.md", "docs/data.md")  # they use s3://, which is a server on this machine (tests/s3.py)
MADE = {  # what pages use of a page before them, and the commands of that page which make it
    "runs/demo": ("README.md", "make demo"),
    "shards/darcy32": ("README.md", "make demo"),
    "runs/d64": ("docs/first_run.md", "activate|pidscale"),
    "shards/darcy64": ("docs/first_run.md", "activate|pidscale make-shards"),
}
FILES = {  # what a reader of a page has before it is read
    "docs/converting.md": "from tests.docs import files; files.foreign()",
    "docs/data.md": "from tests.docs import files; files.upload()",
    "docs/clusters.md": "from tests.docs import files; files.upload(); files.slurm()",
}


def otherwise(command: Command) -> tuple[str, str]:
    """Return what is run in place of a command, and why its numbers are others than the page's, or "" if they are not."""
    text = command.text
    why: dict[str, None] = {}
    for rule in _of(OTHERWISE, command):
        for words, other in rule.instead:
            assert words in text, f"{command.place}: {words!r} is not in this command"
            text = text.replace(words, other)
        text, hash_, comment = text.partition("   #")
        text = f"{text} {rule.add}{hash_}{comment}" if rule.add else f"{text}{hash_}{comment}"
        why[rule.why] = None
    return text, "; ".join(why)


def quick(step: Command | Block) -> bool:
    """Whether a test runs a command or a block."""
    if isinstance(step, Command):
        return QUICK.match(step.text) is not None
    return step.language == "python" and not step.title and step.page not in LONG_PYTHON


def why_not(command: Command) -> str:
    """Return why a command is not run, or ""."""
    return next((rule.why for rule in _of(NOT_RUN, command)), "")


def _of(rules: Iterable[Rule], command: Command) -> list[Rule]:
    return [rule for rule in rules if rule.meets(command)]


def unmet(commands: Iterable[Command]) -> list[str]:
    """Return the rules that are about no command of the pages."""
    every = list(commands)
    rules = [rule for rule in (*OTHERWISE, *NOT_RUN) if not any(map(rule.meets, every))]
    return [
        f"no command of {rule.page} contains {rule.part!r}: remove its rule from tests/docs/plan.py" for rule in rules
    ]
