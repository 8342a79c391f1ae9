"""Paths as users write them: home folders, addresses of remote stores, and the copy of a checkout that a Ray job runs in.

Reads and writes no file. Must not know what a path is used for: the caller names the setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pidscale.config import Settings, UserError

PATH_SETTINGS = (
    "data.path",
    "data.cache",
    "teacher.start",
    "distill.teacher",
    "distill.endpoints",
    "run.folder",
    "run.scratch",
)
"""The settings that are paths."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # s3://bucket, and s3:/bucket as pathlib writes it
_STORE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]+(/.*)?")
_MISSPELT = re.compile(r"(?i:s3a?|gs|gcs|az|abfss?|oss|hdfs)(:(?!//)|//)")  # s3:bucket, s3//bucket
_NO_STORES = (
    "file",
    "local",
    "memory",
    "http",
    "https",
    "ftp",
    "data",
    "github",
)  # disks and pages, by schemes of fsspec
_PACKAGE = "/working_dir_files/_ray_pkg_"  # where Ray unpacks what `ray job submit --working-dir` uploads


def is_address(path: str | Path) -> bool:
    """Return whether a path is the address of a remote store rather than a folder."""
    return "://" in str(path)


def expanded(path: str | Path, key: str) -> str:
    """Return the path with a leading `~` or `~user` replaced by that home folder, as a shell does.

    Args:
        path: What the user wrote; an address is not changed.
        key: Setting or argument that the path is the value of, for the message.

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


def local_path(key: str) -> Callable[[str], Path]:
    """Return the type of a command line argument that is a path on this machine, for argparse.

    Args:
        key: Name of the argument, for messages.

    Returns:
        Function from a word of the command line to a path; it raises UserError for an empty word and for an address of a
        remote store.
    """

    def convert(word: str) -> Path:
        """Return the path that a word of the command line stands for."""
        if not word:
            raise UserError(f"{key}: the path is empty; name a file or a folder (`.` is the current one)")
        if _ADDRESS.match(word):
            raise UserError(f"{key}={word}: an address of a remote store, expected a path on this machine")
        return Path(expanded(word, key))

    return convert


def with_paths(settings: Settings, change: Callable[[str, str], str]) -> Settings:
    """Return the settings with every path that is set replaced by change(path, key)."""
    for name in PATH_SETTINGS:
        section, key = name.split(".")
        part = getattr(settings, section)
        if path := getattr(part, key):
            settings = replace(settings, **{section: replace(part, **{key: change(path, name)})})
    return settings


def absolute(settings: Settings) -> Settings:
    """Return the settings with absolute paths, since workers have other working directories; addresses do not change."""
    return with_paths(settings, _absolute)


def _absolute(path: str, key: str) -> str:
    return path if is_address(path) else str(Path(expanded(path, key)).absolute())


def refuse_address(path: str | Path, key: str, why: str) -> None:
    """Refuse an address where only a folder can be used, since it would become a local folder called `s3:`.

    Args:
        path: Path as the user wrote it.
        key: Setting or argument that it is the value of, for the message.
        why: What was expected, for the message.

    Raises:
        UserError: When the path is an address.
    """
    if _ADDRESS.match(str(path)):
        raise UserError(f"{key}={path}: {why}")


def check_store(path: str, key: str) -> None:
    """Refuse an address at which nothing can be written and read again by other processes.

    Args:
        path: What the user wrote; a folder passes.
        key: The setting that it is the value of, for the message.

    Raises:
        UserError: When the path is an address that names no bucket, is misspelt, or is of a kind that keeps nothing.
    """
    scheme = path.split(":")[0]
    keeps_nothing = scheme.lower() in _NO_STORES or scheme != scheme.lower()
    if _MISSPELT.match(path) or (_ADDRESS.match(path) and (not _STORE.fullmatch(path) or keeps_nothing)):
        raise UserError(f"{key}={path}: expected a folder, or the address of an object store such as s3://BUCKET/runs")


def refuse_job_package(path: str | Path, key: str) -> None:
    """Refuse a path inside the copy of the checkout that Ray unpacked for a job.

    Every host has a copy of its own, and Ray deletes it after the job, so that what is written there is lost.

    Args:
        path: Path as the user wrote it.
        key: Setting or argument that it is the value of, for the message.

    Raises:
        UserError: When the path lies in such a copy.
    """
    if not is_address(path) and _PACKAGE in os.path.realpath(path):
        raise UserError(
            f"{key}={path}: lies in the copy of the working directory that Ray makes for this job and deletes after it; "
            "give an absolute path on storage that all hosts share"
        )


def check_folder(folder: Path, key: str) -> None:
    """Check that a folder exists or can be made.

    Args:
        folder: The folder.
        key: The setting that chose it, for the message.

    Raises:
        UserError: The folder or one above it is a file, or a link that leads nowhere.
    """
    for place in (folder, *folder.parents):
        if os.path.lexists(place):
            if not place.is_dir():
                what = "a link that leads nowhere" if place.is_symlink() and not place.exists() else "not a folder"
                raise UserError(f"{key}: {place} is {what}; name a folder that this process may write")
            return
