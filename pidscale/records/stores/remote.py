"""A set at an address that fsspec knows (s3://, gs://, ...): byte ranges, with patience. Knows names and bytes only.

Credentials come from the environment alone, in the way that the library of each store documents.
"""

from __future__ import annotations

import errno
import random
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pidscale.config import UserError
from pidscale.records.stores.base import Unreachable

T = TypeVar("T")
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0  # seconds between two attempts
_TOLD = 2.0  # seconds of silence after which a user is told
_FINAL = (FileNotFoundError, IsADirectoryError, NotADirectoryError, UserError)  # asking again changes nothing


class Remote:
    """A set in an object store. Every request is repeated for `patience` seconds, with growing pauses, before it fails."""

    piece = 2**24  # a request costs as much time as megabytes do

    def __init__(self, address: str, patience: float = 300.0) -> None:
        """UserError for a kind of address that nothing here can read."""
        import fsspec

        self.address, self.patience = address.rstrip("/"), patience
        try:
            self._files, self._base = fsspec.core.url_to_fs(self.address, **_own_options(self.address))
        except (ImportError, ValueError) as error:
            said = " ".join(str(error).split())[:160]
            raise UserError(
                f"data.path={address}: cannot be opened ({said}); s3:// needs `pip install 'pidscale[remote]'`, other stores "
                "the fsspec library of theirs"
            ) from None
        self._base = str(self._base).rstrip("/")
        if hasattr(self._files, "retries"):
            self._files.retries = 1

    def where(self, name: str) -> str:
        """The file's address."""
        return f"{self.address}/{name}"

    def sizes(self) -> dict[str, int]:
        """Bytes by name, from one listing."""
        self._files.invalidate_cache()
        try:
            listed = self._patient("", lambda: self._files.ls(self._base, detail=True))
        except FileNotFoundError:
            raise UserError(f"{self.address}: nothing is there; data.path must name a shard set") from None
        return {str(one["name"]).rsplit("/", 1)[-1]: int(one["size"] or 0) for one in listed if one["type"] == "file"}

    def read(self, name: str) -> bytes:
        """A whole file."""
        return bytes(self._patient(name, lambda: self._files.cat_file(f"{self._base}/{name}")))

    def fill(self, name: str, offset: int, view: memoryview) -> None:
        """One request for these bytes."""
        if not len(view):
            return
        path, end = f"{self._base}/{name}", offset + len(view)
        data: Any = self._patient(name, lambda: self._files.cat_file(path, start=offset, end=end))
        if len(data) != len(view):
            raise ValueError("the object ends inside this sample; restore it")
        view[:] = data

    def close(self) -> None:
        """Nothing is held open."""

    def renew(self, name: str) -> bool:
        """False: there is no copy."""
        return False

    def _patient(self, name: str, call: Callable[[], T]) -> T:
        """The result of a request. UserError if the store refuses, or stays away for longer than our patience."""
        began, pause, told = time.monotonic(), _FIRST_WAIT, False
        where = self.where(name) if name else self.address
        while True:
            try:
                return call()
            except _FINAL:
                raise
            except Exception as error:  # each store's library has its own kinds
                said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
                if isinstance(error, OSError) and error.errno == errno.EINVAL:
                    raise ValueError("the object ends inside this sample; restore it") from None
                if _refused(error):
                    raise Unreachable(
                        f"{where}: the store refuses ({said}); address and credentials are taken as the environment has "
                        "them, check them"
                    ) from None
                waited = time.monotonic() - began
                if waited + pause > self.patience:
                    raise Unreachable(
                        f"{where}: the store is away ({said}), and data.patience={self.patience:g} s are over; check network "
                        "and endpoint and start again, or raise it"
                    ) from None
                if waited > _TOLD and not told:
                    told = True
                    print(
                        f"{where}: no answer ({said}); asked again for {self.patience:g} s", file=sys.stderr, flush=True
                    )
                time.sleep(pause * random.uniform(0.5, 1.0))  # ranks that failed together do not come back together
                pause = min(2 * pause, _LONGEST_WAIT)


def _refused(error: Exception) -> bool:
    """Whether asking again cannot help: no permission, wrong names or settings, an answer that says no."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(error, "status", None)  # of HTTP
    if isinstance(status, int):
        return 400 <= status < 500 and status not in (408, 425, 429)
    if "BotoCoreError" in kinds:  # all that the AWS library says but of its connections
        return not kinds & {"HTTPClientError", "ConnectionError"}
    return isinstance(error, (PermissionError, ValueError, TypeError))


def _own_options(address: str) -> dict[str, Any]:
    """The repeating is done here, by the user's patience: the library below should not do it too."""
    if address.split("://")[0] not in ("s3", "s3a"):
        return {}
    return {"config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 1}}}
