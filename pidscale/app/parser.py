"""The command line parser, with a subparser for every subcommand.

Must not know what a subcommand does, and imports nothing heavy: help and error messages work without torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from pidscale import __version__
from pidscale.app.settings_parser import add_settings_commands, add_words
from pidscale.config import UserError
from pidscale.paths import local_path

# default attributes of the result of `parse`
DEFAULTS: dict[str, Any] = {
    "settings": None,
    "phases": None,
    "interrupted": "run the same command again to continue",
    "memory": "use a machine with more memory",
    "files": "check the file, its permissions and the free space",
}
TASKS = ("forward", "inverse", "reconstruct")
OPTIMISERS = ("lbfgs", "adam")
PRECISIONS = ("fp32", "bf16", "fp16")
SEARCH: dict[str, Any] = {
    "steps": 200,
    "starts": 4,
    "seed": 0,
    "batch": 64,
    "optimiser": "lbfgs",
    "field_prior": 0.1,
}
LEARNING: dict[str, Any] = {"steps": 1200, "batch": 32, "rate": 2e-3, "seed": 0}


class _Parser(argparse.ArgumentParser):
    """A parser that accepts no abbreviated options and raises UserError on errors."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Raise UserError instead of printing the usage."""
        raise UserError(f"{message}; `{self.prog} --help` lists the arguments")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line. --help and --version end the process.

    Args:
        words: Words after `pidscale`.

    Returns:
        The arguments of the subcommand, with its name (`command`), its module in pidscale.app (`module`), and the advice in
        error messages (`interrupted`, `memory`, `files`). For a subcommand with settings, also the phases that the settings
        are checked for (`phases`, otherwise None), and the packages that are imported late or only by workers (`late`).

    Raises:
        UserError: When an argument is missing, unknown or of the wrong type.
    """
    tree = _tree()
    asked, left = tree.parse_known_args(list(words))
    if "words" in asked:  # argparse collects only words before the first option
        asked.words += [word for word in left if not word.startswith("-")]
        left = [word for word in left if word.startswith("-")]
    if left:
        raise UserError(
            f"unrecognized arguments: {' '.join(left)}; `pidscale {asked.command} --help` lists the arguments"
        )
    return asked


def named_numbers(option: str, words: Sequence[str], example: str) -> dict[str, float]:
    """Read the NAME=VALUE arguments of an option.

    Args:
        option: Option such as --param, for messages.
        words: Arguments of the option.
        example: Correct example, for messages.

    Returns:
        The numbers by name.

    Raises:
        UserError: When an argument has another form, or a name is given twice.
    """
    found: dict[str, float] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if name in found:
            raise UserError(f"{option}={word}: {name} is given twice; keep one")
        try:
            found[name] = float(value)
        except ValueError:
            separator = ""
        if not separator or not name:
            raise UserError(f"{option}={word}: expected NAME=VALUE, such as {example}")
    return found


def _tree() -> _Parser:
    tree = _Parser(
        prog="pidscale", description="One-step generators of PDE fields: make data, train, distil, measure, use."
    )
    tree.add_argument("--version", action="version", version=f"pidscale {__version__}")
    tree.set_defaults(**DEFAULTS)
    commands = tree.add_subparsers(
        dest="command", required=True, title="commands", metavar="COMMAND", parser_class=_Parser
    )
    add_settings_commands(commands)
    _add_convert(commands)
    _add_shards(commands)
    _add_sample(commands)
    _add_export(commands)
    _add_push(commands)
    _add_show(commands)
    _add_runs(commands)
    _add_solve(commands)
    _add_learn_start(commands)
    return tree


_CONVERT = """Convert files of other people's data into a shard set (docs/converting.md):

  pidscale convert source=FILE out=FOLDER pde=NAME

  source=FILE            the file, or several that are read as one: a folder, a pattern, or names with commas between
  out=FOLDER             the folder of the set
  pde=NAME               the equation; pde.params.NAME=VALUE sets a parameter of it
  layout=NAME            the layout of the file; recognised unless given
  grid=KIND              node, cell, periodic or strip; that of the equation unless given
  test=0.1               the test split: a share below 1, a number of samples, or files of its own
  seed=0                 chooses the samples of the test split
  start=0 every=1        the first time that is taken, and the stride from there
  drop_end=false         omit the repeated end point of periodic axes
  duplicates=drop        drop or refuse samples that are copies of others
  bad=refuse             refuse or omit samples with missing values or values beyond float32
  samples_per_shard=512  samples in a shard
  force=false            accept data that contradict the grid, or numbers that look like missing values
  channels.NAME=ARRAY    the array of a channel; ARRAY:i is its component i
  axes.ARRAY=LETTERS     the dims of an array, of N (samples), T (times), S (species), Y and X
  scale.NAME=NUMBER      a factor of a channel
  parameters.NAME=ARRAY  the array of a parameter of each sample
"""


def _add_convert(commands: Any) -> None:
    command = commands.add_parser(
        "convert", help="make a shard set from files of npy, npz, MATLAB, HDF5, netCDF or .pt", description=_CONVERT
    )
    add_words(command, "key=value, as listed above")
    command.set_defaults(
        module="convert",
        memory="give a file that fits into memory",
        files="check source and out, or give a file that fits into memory",
    )


_SHARDS = """Look after a shard set, in a folder or at an address such as s3://bucket/set (shards/README.md):

  pidscale shards verify PATH                  check every file, sample and statistic, and residuals of some samples
  pidscale shards show PATH [--out FILE.png]   print its description, and draw a few samples (default: last part of PATH.png)
  pidscale shards repair-index PATH            write indices that are missing or damaged again, from their tars

--equation NAME says which equation a set is expected to be of. Nothing is imported because a set asks for it: of a set of an
equation of your own (module:Class, here or on PYTHONPATH), verify and show omit what needs it unless you name it so.
Ends with status 0 if nothing is wrong, 2 otherwise; each finding is one line on stderr.
"""


def _add_shards(commands: Any) -> None:
    command = commands.add_parser("shards", help="verify, show or repair a shard set", description=_SHARDS)
    command.set_defaults(module="shards", interrupted="run the same command again to start from the beginning")
    parts = command.add_subparsers(
        dest="part", required=True, metavar="{verify,show,repair-index}", parser_class=_Parser
    )
    for name in ("verify", "show", "repair-index"):
        part = parts.add_parser(name, description=f"{name}: see pidscale shards --help")
        part.add_argument("path", metavar="PATH", help="folder or address of a shard set")
        if name != "repair-index":
            _add_equation(part, "the set")
        if name == "show":
            _add_file(part, "--out", "FILE.png", "where the picture is written")


_SAMPLE = """Draw fields, and a picture of the first four with their residuals:

  pidscale sample --student students/darcy    -n 4  --picture fields.png
  pidscale sample --student runs/demo/student -n 16 --out samples.npz
"""


def _add_sample(commands: Any) -> None:
    command = commands.add_parser(
        "sample",
        help="draw fields from a student or a teacher",
        description=_SAMPLE,
    )
    command.set_defaults(module="sample", interrupted="nothing was written", memory="give a smaller --batch or -n")
    _add_student(command, "a consolidated student, or a teacher in the same form, such as runs/demo/student")
    add = command.add_argument
    add("-n", dest="count", type=int, required=True, metavar="N", help="how many samples")
    _add_file(command, "--out", "FILE.npz", "where channels [n, Y, X] and parameters [n] are written")
    _add_file(command, "--picture", "FILE.png", "where a picture of the first four samples is written")
    add("--seed", type=int, default=0, help="of the noise; sample i depends on the seed and on i (default %(default)s)")
    add("--nfe", type=int, default=1, metavar="N", help="network calls: one of the student, the rest of its teacher")
    add("--teacher", metavar="FOLDER", help="the student's teacher, for --nfe above 1")
    add("--steps", type=int, metavar="K", help="Heun steps, of a teacher alone (default 18)")
    add("--batch", type=int, default=64, help="samples drawn at once (default %(default)s)")
    text = "of the network's inner layers; head and residuals stay in fp32 (default %(default)s)"
    add("--precision", choices=PRECISIONS, default="fp32", help=text)


def _add_export(commands: Any) -> None:
    command = commands.add_parser(
        "export",
        help="write a student as a program for runtimes without pidscale",
        description="Write a student as a program: pidscale export --student students/darcy --out darcy.onnx",
    )
    command.set_defaults(module="export", interrupted="nothing was written")
    _add_student(command, "a consolidated student, such as students/darcy", params=False)
    _add_file(command, "--out", "FILE", "the program: FILE.onnx for ONNX, FILE.pt2 for torch.export", required=True)


_PUSH = """Upload a student or a teacher to the Hugging Face hub, with a README made of its card (docs/student.md):

  pidscale push runs/demo/student org/name --license apache-2.0

Log in before with `hf auth login`, or set HF_TOKEN. Needs pidscale[hub].
"""


def _add_push(commands: Any) -> None:
    command = commands.add_parser("push", help="upload a student or a teacher to the hub", description=_PUSH)
    command.set_defaults(module="push", interrupted="the hub keeps whole commits only: run the same command again")
    add = command.add_argument
    add("student", metavar="STUDENT", type=local_path("STUDENT"), help="folder of a consolidated student or teacher")
    add("repository", metavar="ORG/NAME", help="the repository; created if there is none")
    text = "license of the weights as the hub names it, such as apache-2.0 (default: the page names none)"
    add("--license", metavar="ID", help=text)
    add("--private", action="store_true", help="a repository that is created is private")
    add("--new-readme", action="store_true", help="replace a README.md that the repository has")


_SHOW = """Describe what a folder holds:

  pidscale show students/darcy                         its card, in a few lines
  pidscale show students/darcy --html                  and a page about it, darcy.html: samples, measures, how to load it
  pidscale show runs/demo/student --html demo.html --data shards/darcy

The page is one file that any browser opens, without a network.
"""


def _add_show(commands: Any) -> None:
    command = commands.add_parser("show", help="describe a student, a teacher or a shard set", description=_SHOW)
    command.set_defaults(module="show", interrupted="no page was written")
    command.add_argument("path", metavar="FOLDER", help="a consolidated generator, or a shard set (an address will do)")
    _add_equation(command, "the folder")
    _add_file(command, "--out", "FILE.png", "where a picture of a few samples of a shard set is written")
    text = "write a page about a student or a teacher (default: last part of FOLDER.html)"
    command.add_argument("--html", metavar="FILE.html", nargs="?", const=True, type=local_path("--html"), help=text)
    text = "a shard set; the page compares spectra of its truths with those of samples"
    command.add_argument("--data", metavar="SHARDS", help=text)


def _add_runs(commands: Any) -> None:
    command = commands.add_parser(
        "runs",
        help="list runs: how far they are, what their students reach, where to look",
        description="List the runs of a folder: pidscale runs, or pidscale runs /scratch/runs",
    )
    command.set_defaults(module="runs")
    command.add_argument(
        "folder", metavar="FOLDER", nargs="?", default="runs", help="the folder of the runs (%(default)s)"
    )
    command.add_argument("--json", action="store_true", help="JSON for programs (docs/command_line.md lists its keys)")


_SOLVE = """Find fields that agree with what is known of them (docs/tasks.md):

  pidscale solve forward     --student runs/demo/student --input coefficient.npy --out answer.npz
  pidscale solve inverse     --student runs/demo/student --input solution.npy    --out answer.npz --picture answer.png
  pidscale solve reconstruct --student runs/demo/student --input sensors.csv     --out answer.npz --posterior 32

--posterior K draws K samples, and writes their mean, spread and pointwise 90 % interval, in place of the likeliest field.
"""


def _add_solve(commands: Any) -> None:
    command = commands.add_parser(
        "solve", help="find fields that agree with coefficients, solutions or sensors", description=_SOLVE
    )
    command.set_defaults(module="solve", interrupted="no answer was written", memory="give a smaller --batch")
    add = command.add_argument
    add("task", choices=TASKS, help="what is known: the inputs (forward), the solution (inverse), or some points")
    _add_student(command, "a consolidated student, such as runs/demo/student")
    _add_file(command, "--input", "FILE", "what is known: npy, npz or csv (docs/tasks.md)", required=True)
    _add_file(command, "--out", "FILE.npz", "where the answer is written", required=True)
    _add_file(command, "--picture", "FILE.png", "where a picture of the first field is written")
    add("--sigma", action="append", default=[], metavar="[CHANNEL=]S", help="noise of what is known, in its own unit")
    add("--posterior", type=int, metavar="K", help="draw K posterior samples in place of the likeliest field")
    add(
        "--steps",
        type=int,
        help=f"network evaluations of each start (default {SEARCH['steps']}; 40 from a start network)",
    )
    add("--starts", type=int, help=f"draws the search starts from (default {SEARCH['starts']}; 1 with a start network)")
    add("--seed", type=int, default=SEARCH["seed"], help="of those draws (default %(default)s)")
    add("--batch", type=int, default=SEARCH["batch"], help="fields searched at once (default %(default)s)")
    add("--physics", type=float, help="weight of the equation (default 1; 0 for posterior samples)")
    add("--optimiser", choices=OPTIMISERS, default=SEARCH["optimiser"], help="(default %(default)s)")
    text = (
        "evaluations of a second search, over the field itself, from the first (default 300; 0 for posterior samples)"
    )
    add("--field-steps", type=int, metavar="K", help=text)
    text = "weight that holds the second search to the answer of the first (default %(default)s)"
    add("--field-prior", type=float, default=SEARCH["field_prior"], metavar="W", help=text)
    text = "search forward problems too, where the equation's solver steps behind the student answer them"
    add("--no-solver", dest="solver", action="store_false", help=text)


_LEARN_START = """Learn where the searches of a student start, from its own samples (docs/tasks.md):

  pidscale learn-start --student runs/demo/student

The network is written into the folder of the student, as start/, and comes with it from then on.
"""


def _add_learn_start(commands: Any) -> None:
    command = commands.add_parser(
        "learn-start", help="learn where the searches of a student start", description=_LEARN_START
    )
    command.set_defaults(module="learn_start", interrupted="nothing was written", memory="give a smaller --batch")
    _add_file(command, "--student", "FOLDER", "a student, such as runs/demo/student", required=True)
    _add_equation(command, "the student")
    add = command.add_argument
    add("--steps", type=int, default=LEARNING["steps"], help="training steps (default %(default)s)")
    add("--batch", type=int, default=LEARNING["batch"], help="samples of a step (default %(default)s)")
    add("--rate", type=float, default=LEARNING["rate"], help="largest learning rate (default %(default)s)")
    add("--seed", type=int, default=LEARNING["seed"], help="of samples and weights (default %(default)s)")
    add("--force", action="store_true", help="replace a start network that is there")
    add("--device", default="cpu", help="(default %(default)s)")


def _add_student(command: _Parser, what: str, params: bool = True) -> None:
    """Add the options for the generator, its equation, its parameters if they matter, and the device."""
    _add_file(command, "--student", "FOLDER", f"{what}; or ORG/NAME, a repository of the hub", required=True)
    command.add_argument("--revision", metavar="REV", help="a branch, a tag or a commit of ORG/NAME (default: main)")
    _add_equation(command, "the student")
    if params:
        command.add_argument(
            "--param", action="append", default=[], metavar="NAME=VALUE", help="a parameter that is known"
        )
    text = "solver steps of the equation behind every field (default: those that its card names)"
    command.add_argument("--head", type=int, metavar="K", help=text)
    command.add_argument("--device", default="cpu", help="(default %(default)s)")


def _add_equation(command: _Parser, what: str) -> None:
    text = f"the equation that {what} is expected to be of; module:Class for one of your own"
    command.add_argument("--equation", metavar="NAME", help=text)


def _add_file(command: _Parser, option: str, form: str, what: str, required: bool = False) -> None:
    command.add_argument(option, metavar=form, type=local_path(option), required=required, help=what)
