"""Paths as users write them: home folders, addresses of remote stores, and the copy of a checkout that a Ray job runs in.

Reads and writes no file. Must not know what a path is for: the caller names the setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pidscale.config import Settings, UserError

# the settings that are paths
PATH_SETTINGS = ("data.path", "data.cache", "teacher.start", "distill.teacher", "distill.endpoints", "run.folder")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # s3://bucket, and s3:/bucket as pathlib writes it
_PACKAGE = "/working_dir_files/_ray_pkg_"  # where Ray unpacks what `ray job submit --working-dir` uploads


def is_address(path: str | Path) -> bool:
    """Whether a path names a remote store rather than a folder."""
    return "://" in str(path)


def expanded(path: str | Path, key: str) -> str:
    """The path with a leading `~` or `~user` replaced by that home folder, as a shell does where it sees one.

    Args:
        path: What the user wrote; an address stays as it is.
        key: The setting or argument that the path is the value of, for the message.

    Returns:
        The path.

    Raises:
        UserError: When there is no such user, or the home folder is not known.
    """
    text = str(path)
    if not text.startswith("~"):
        return text
    found = os.path.expanduser(text)
    if found.startswith("~"):
        raise UserError(
            f"{key}={text}: no home folder is known for {text.split('/')[0]}; write ./{text} if that is a name"
        )
    return found


def at_home(key: str) -> Callable[[str], Path]:
    """What turns a word of the command line, the value of `key`, into a path."""

    def path(word: str) -> Path:
        if _ADDRESS.match(word):
            raise UserError(f"{key}={word}: an address of a remote store, expected a file of this machine")
        return Path(expanded(word, key))

    return path


def with_paths(settings: Settings, change: Callable[[str, str], str]) -> Settings:
    """The settings with change(path, key) in place of every path that is set."""
    for name in PATH_SETTINGS:
        section, key = name.split(".")
        part = getattr(settings, section)
        if path := getattr(part, key):
            settings = replace(settings, **{section: replace(part, **{key: change(path, name)})})
    return settings


def absolute(settings: Settings) -> Settings:
    """The settings with absolute paths: workers have working directories of their own. Addresses stay as they are."""
    return with_paths(settings, _absolute)


def _absolute(path: str, key: str) -> str:
    return path if is_address(path) else str(Path(expanded(path, key)).absolute())


def refuse_address(path: str | Path, key: str, why: str) -> None:
    """Raise UserError for an address where only a folder can be used: it would become a local folder called `s3:`."""
    if _ADDRESS.match(str(path)):
        raise UserError(f"{key}={path}: {why}")


def refuse_job_package(path: str | Path, key: str) -> None:
    """Raise UserError for a path inside the copy of the checkout that Ray unpacked for a job.

    Every host has such a copy of its own, and Ray deletes it after the job: what is written there is lost.
    """
    if _PACKAGE in os.path.realpath(path):
        raise UserError(
            f"{key}={path}: lies in the copy of the working directory that Ray made for this job and deletes after it; "
            "give an absolute path on storage that all hosts share"
        )
