"""The store of a set at an address that fsspec knows (s3://, gs://, ...), read by byte ranges. Knows names and bytes only.

Credentials come from the environment only, as the library of each store documents.
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
_FIRST_PAUSE = 0.2  # seconds between two requests
_LONGEST_PAUSE = 10.0
_REPORT_AFTER = 2.0  # seconds without an answer after which the user gets a line
_FINAL = (FileNotFoundError, IsADirectoryError, NotADirectoryError, UserError)  # a second request would not help


class Remote:
    """A set in an object store. A request is repeated for `patience` seconds, with growing pauses, before it fails.

    Args:
        address: The address of the set.
        patience: The seconds for which the store may be unavailable.
        key: The setting that the address is the value of, for messages.

    Attributes:
        piece: The bytes of a request, many because a request takes as much time as some megabytes.

    Raises:
        UserError: No installed library can read such an address.
    """

    piece = 2**24

    def __init__(self, address: str, patience: float = 300.0, key: str = "data.path") -> None:
        import fsspec

        self.address = address.rstrip("/")
        self.patience = patience
        self.key = key
        try:
            self._files, self._base = fsspec.core.url_to_fs(self.address, **_own_options(self.address))
        except (ImportError, ValueError) as error:
            cause = " ".join(str(error).split())[:160]
            raise UserError(
                f"{key}={address}: cannot be opened ({cause}); s3:// needs `pip install 'pidscale[remote]'`, another "
                "store its own fsspec library"
            ) from None
        self._base = str(self._base).rstrip("/")
        if hasattr(self._files, "retries"):
            self._files.retries = 1

    def where(self, name: str) -> str:
        """Return the address of a file."""
        return f"{self.address}/{name}"

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all files by name, from one listing.

        Returns:
            The sizes.

        Raises:
            UserError: There is nothing at this address.
        """
        self._files.invalidate_cache()
        try:
            listed = self._patient("", lambda: self._files.ls(self._base, detail=True))
        except FileNotFoundError:
            raise UserError(f"{self.address}: nothing is there; expected the address of a shard set") from None
        return {str(one["name"]).rsplit("/", 1)[-1]: int(one["size"] or 0) for one in listed if one["type"] == "file"}

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return bytes(self._patient(name, lambda: self._files.cat_file(f"{self._base}/{name}")))

    def fill(self, name: str, offset: int, view: memoryview) -> None:
        """Fill a buffer with the bytes of a file, by one request.

        Args:
            name: The file.
            offset: The offset of the first byte.
            view: The buffer.

        Raises:
            ValueError: The file ends too early.
        """
        if not len(view):
            return
        path = f"{self._base}/{name}"
        end = offset + len(view)
        data: Any = self._patient(name, lambda: self._files.cat_file(path, start=offset, end=end))
        if len(data) != len(view):
            raise ValueError("the object ends inside this sample; restore it")
        view[:] = data

    def close(self) -> None:
        """Do nothing: no files are kept open."""

    def discard_damaged(self, name: str) -> bool:
        """Return False: there are no local copies."""
        return False

    def _patient(self, name: str, call: Callable[[], T]) -> T:
        """Return the result of a request; Unreachable if the store refuses it or is unavailable for too long."""
        began = time.monotonic()
        pause = _FIRST_PAUSE
        reported = False
        where = self.where(name) if name else self.address
        while True:
            try:
                return call()
            except _FINAL:
                raise
            except Exception as error:  # each store's library has its own kinds of errors
                cause = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
                if isinstance(error, OSError) and error.errno == errno.EINVAL:
                    raise ValueError("the object ends inside this sample; restore it") from None
                if _refused(error):
                    raise Unreachable(
                        f"{where}: the store refuses ({cause}); check the address, and the credentials in the environment"
                    ) from None
                waited = time.monotonic() - began
                if waited + pause > self.patience:
                    raise Unreachable(
                        f"{where}: the store is unavailable ({cause}), and data.patience={self.patience:g} s are over; check "
                        "network and endpoint and start again, or raise data.patience"
                    ) from None
                if waited > _REPORT_AFTER and not reported:
                    reported = True
                    line = f"{where}: no answer ({cause}); the request is repeated for {self.patience:g} s"
                    print(line, file=sys.stderr, flush=True)
                time.sleep(pause * random.uniform(0.5, 1.0))  # ranks that failed together do not try again together
                pause = min(2 * pause, _LONGEST_PAUSE)


def _refused(error: Exception) -> bool:
    """Return whether a second request cannot help: no permission, wrong names or settings, a refusal."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(error, "status", None)  # of HTTP
    if isinstance(status, int):
        return 400 <= status < 500 and status not in (408, 425, 429)
    if "BotoCoreError" in kinds:  # every error of the AWS library except those of its connections
        return not kinds & {"HTTPClientError", "ConnectionError"}
    return isinstance(error, (PermissionError, ValueError, TypeError))


def _own_options(address: str) -> dict[str, Any]:
    """Return options that keep the library from repeating requests, which this module does, and from waiting long for one."""
    if address.split("://")[0] not in ("s3", "s3a"):
        return {}
    once = {"mode": "standard", "total_max_attempts": 1}
    return {"config_kwargs": {"retries": once, "connect_timeout": 10, "read_timeout": 20}}
