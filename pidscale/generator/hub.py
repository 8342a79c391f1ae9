"""Generators in repositories of the Hugging Face hub: downloaded to its cache, and uploaded with a model card.

Only cards and safetensors are asked for, whatever else a repository has. The package huggingface_hub is optional and imported
late; its cache, its token and its environment variables (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT) are used unchanged.
Knows no ranks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from pidscale.config import UserError
from pidscale.generator.artifact import CARD, TEACHER, WEIGHTS, read_card, read_weights
from pidscale.generator.card import Kind
from pidscale.generator.model_card import text_of
from pidscale.generator.tasks.start import FOLDER as START
from pidscale.paths import expanded
from pidscale.plain import printable

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_FILES = tuple(f"{folder}{name}" for folder in ("", f"{TEACHER}/", f"{START}/") for name in (CARD, WEIGHTS))
README = "README.md"
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


@contextmanager
def local(path: str | Path, revision: str | None = None) -> Iterator[str]:
    """Give the folder that a user named: a path of this machine, or else the download of a repository `org/name` of the hub.

    Args:
        path: What the user wrote. It is a path if it exists, or if its first part is a folder here, as in `runs/studnet`.
        revision: A branch, a tag or a commit of the repository; None for its main branch.

    Yields:
        The folder.

    Raises:
        UserError: When the hub has no such repository or revision, refuses or cannot be reached, or when the body raises one.
    """
    folder = expanded(path, "path")
    if folder.startswith("hf://"):
        raise UserError(f"{folder}: an address of the hub; write its ORG/NAME alone")
    name, at, asked = folder.partition("@")
    if at and _REPOSITORY.fullmatch(name) and not Path(folder).exists():
        raise UserError(f"{folder}: no such folder; a revision of {name} is named by revision={asked!r} (--revision)")
    if not _REPOSITORY.fullmatch(folder) or Path(folder).exists() or Path(folder).parent.is_dir():
        if revision is not None:
            raise UserError(
                f"revision={revision!r}: belongs to a repository ORG/NAME of the hub, but {folder} is a path"
            )
        yield folder
        return
    downloaded = _download(folder, revision)
    try:
        yield str(downloaded)
    except UserError as error:
        raise UserError(f"{folder}, downloaded from the hub: {error}") from None


def _download(repository: str, revision: str | None) -> Path:
    """Return the folder of a repository in the cache of the hub, in which all files are of one commit."""
    _check_package(f"{repository}: no such folder; if it is a repository of the hub")
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(_FILES),
            library_name="pidscale",
        )
    except Exception as error:  # the client has errors of its own, of its HTTP library and of the system
        _refuse(f"{repository}: no such folder, and not from the hub:", error, revision)
    if not (Path(folder) / CARD).exists():
        raise UserError(f"{repository}: the repository of the hub has no {CARD}, so it holds no generator of pidscale")
    return Path(folder)


def push(
    folder: str | Path, repository: str, license: str | None = None, private: bool = False, new_readme: bool = False
) -> str:
    """Upload a student or a teacher to the hub, with a README.md that is made of its card (generator/model_card.py).

    The student's teacher and its start network are uploaded too where they lie in its folder. One commit has all files, and
    removes those of an earlier student that this one has not.

    Args:
        folder: Folder of the generator.
        repository: Name of the repository, `org/name`; it is created if there is none.
        license: License of the weights, as the hub names it, such as "apache-2.0"; None to name none.
        private: Whether a repository that is created is private.
        new_readme: Whether a README.md that the repository has is replaced.

    Returns:
        Address of the commit.

    Raises:
        UserError: When the folder holds no complete student or teacher, or the hub refuses or cannot be reached.
    """
    own = expanded(folder, "folder")
    card = read_card(own)
    if card.kind not in (Kind.STUDENT, Kind.TEACHER):
        raise UserError(f"{own}: holds a network of kind {card.kind}; only students and teachers are uploaded")
    files: dict[str, str | bytes] = {name: str(Path(own) / name) for name in _FILES if (Path(own) / name).is_file()}
    read_weights(own, card)  # what is damaged here would be damaged for everybody
    if (Path(own) / TEACHER).is_dir():
        read_weights(Path(own) / TEACHER, read_card(Path(own) / TEACHER))
    if not _REPOSITORY.fullmatch(repository):
        raise UserError(f"{repository}: expected the name of a repository of the hub, ORG/NAME")
    if license is not None and not license.strip():
        raise UserError("license: is empty; name one as the hub does, such as apache-2.0, or omit it")
    _check_package(f"{repository}: to upload to the hub")
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(library_name="pidscale")
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        there = set(api.list_repo_files(repository))
        if new_readme or README not in there:
            files[README] = text_of(card, repository, license).encode()
        done = api.create_commit(
            repository,
            [
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()),
                *(CommitOperationDelete(path_in_repo=name) for name in sorted(there & set(_FILES) - set(files))),
            ],
            commit_message=f"{card.kind} of {card.equation.name}",
        )
    except Exception as error:  # as in _download
        _refuse(f"{repository}: not uploaded:", error, None)
    return str(done.commit_url)


def _check_package(why: str) -> None:
    try:
        import huggingface_hub  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(f"{why}, install its client: pip install 'pidscale[hub]' (huggingface_hub)") from None


def _refuse(what: str, error: Exception, revision: str | None) -> NoReturn:
    """Raise a UserError that says in one line what the hub or the way to it refused."""
    raise UserError(f"{what} {_reason(error, revision)}") from None


def _reason(error: BaseException, revision: str | None) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        return _reason(error.__cause__, revision)  # the reason why it looked into the cache
    said = printable(" ".join(str(error).split()))[:200]
    code = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.HFValidationError):
        return f"not the name of a repository ({said}); expected ORG/NAME"
    if isinstance(error, errors.GatedRepoError):
        return f"the repository is gated; ask for access on its page, then {_LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"there is no revision {revision!r}; name a branch, a tag or a commit of the repository"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no such repository, or it is private; check the name, or {_LOG_IN}"
    if code in (401, 403):
        return f"no permission ({code}); {_LOG_IN}, with a token that may do this"
    if code is not None:
        return f"the hub answered with an error ({said}); try again later"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so that only whole copies in the cache of this machine are used; unset it"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; check the space and the permissions of the cache, or set HF_HOME"
    if isinstance(error, OSError) or type(error).__module__.startswith("httpx"):
        return f"the hub cannot be reached; check the network ({said})"
    return f"its client failed ({type(error).__name__}: {said})"
