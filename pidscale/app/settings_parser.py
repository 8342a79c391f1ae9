"""Subcommands that take settings: their names, help texts, checks and packages. Must not know what they do."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, NoReturn

from pidscale.config import PHASES
from pidscale.paths import local_path


@dataclass(frozen=True)
class _SettingsCommand:
    """A subcommand that takes settings, of one run if it has `phases`; `late` names packages that are imported late."""

    name: str
    what: str
    example: str
    phases: tuple[str, ...] | None = ()
    late: tuple[str, ...] = ()
    config: str = "config"
    memory: str = "choose smaller batches"


_TRAINING = ("deepspeed", "matplotlib", "PIL", "scipy", "tensorboard")
_SETTINGS_COMMANDS = (
    _SettingsCommand(
        name="make-shards",
        what="make a shard set by solving the equation",
        example="pde=darcy pde.points=64 data.path=shards/darcy64 data.train=4096",
        late=("scipy",),
    ),
    _SettingsCommand(
        name="train",
        what="train a teacher",
        example="run.name=NAME model=unet_small cluster.zero_stage=2",
        phases=("teacher",),
        late=_TRAINING,
    ),
    _SettingsCommand(
        name="make-endpoints",
        what="make the endpoints of a distillation beforehand, for many students of one teacher",
        example="run.name=NAME distill.endpoints=shards/endpoints",
        phases=("distill",),
    ),
    _SettingsCommand(
        name="distill",
        what="distil a teacher into one-step students",
        example="run.name=NAME distill.weights.dual=0.02",
        phases=("distill",),
        late=_TRAINING,
    ),
    _SettingsCommand(
        name="evaluate",
        what="measure a run and write its report",
        example="run.name=NAME evaluate.samples=1024",
        late=("scipy",),
        memory="lower evaluate.samples or evaluate.batch",
    ),
    _SettingsCommand(
        name="demo",
        what="make shards, train, distil and evaluate in one command, of Darcy flow unless pde= names another equation",
        example="run.name=NAME",
        phases=PHASES,
        late=_TRAINING,
        config="demo",
    ),
    _SettingsCommand(
        name="compare",
        what="train and measure many methods on common questions, cell by cell, and write their table",
        example="compare=quick run.name=NAME",
        phases=None,
        config="compare",
        memory="lower evaluate.samples or evaluate.batch",
    ),
)


def add_settings_commands(commands: Any) -> None:
    """Add all subcommands that take settings to the subparsers of a command line."""
    for one in _SETTINGS_COMMANDS:
        description = f"{one.what[0].upper()}{one.what[1:]}: pidscale {one.name} {one.example}"
        command = commands.add_parser(one.name, help=one.what, description=description, add_help=False)
        command.add_argument("-h", "--help", nargs=0, action=_SettingsHelp, help="show all arguments and settings")
        add_words(command, "group=choice or section.key=value")
        command.set_defaults(
            module=one.name.replace("-", "_"), config=one.config, phases=one.phases, late=one.late, memory=one.memory
        )


def add_words(command: argparse.ArgumentParser, form: str) -> None:
    """Add positional words of this form to a subcommand, and the option --config-dir for further groups."""
    command.add_argument("words", nargs="*", metavar="SETTING", help=form)
    command.add_argument(
        "--config-dir",
        metavar="DIR",
        type=local_path("--config-dir"),
        help="a folder of your own groups, such as DIR/pde/mine.yaml; its files come before those of pidscale",
    )


class _SettingsHelp(argparse.Action):
    """Print the arguments of a subcommand, followed by all groups and settings."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: object) -> NoReturn:
        parser.print_help()
        try:
            from pidscale.app.settings_help import help_text
        except ModuleNotFoundError:
            print("\nGroups and settings are listed here once `pip install 'pidscale[train]'` has been run.")
        else:
            print(f"\n{help_text(namespace.config, namespace.config_dir)}")
        parser.exit()
