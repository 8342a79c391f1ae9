"""A folder of an object store that files are also written to. Knows names and bytes only.

An object appears with all its bytes or not at all. Nothing is renamed, because object stores cannot do that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from pidscale.config import UserError
from pidscale.records.stores.base import Unreachable
from pidscale.records.stores.remote import Remote


class Objects(Remote):
    """The objects below an address, by names that may contain slashes. Requests are repeated as those of `Remote` are."""

    def sizes(self) -> dict[str, int]:
        """Return the sizes of the objects right below the address, by name; empty if there is none."""
        try:
            return super().sizes()
        except Unreachable:
            raise
        except UserError:
            return {}

    def listed(self, prefix: str = "") -> dict[str, int]:
        """Return the sizes of all objects below a name, by name.

        Args:
            prefix: The name of a folder; empty: all objects below the address.

        Returns:
            The sizes; empty if there is no object.
        """
        self._files.invalidate_cache()
        base = f"{self._base}/{prefix}".rstrip("/")
        found: dict[str, dict[str, object]] = {}
        with suppress(FileNotFoundError):
            found = self._patient(prefix, lambda: self._files.find(base, detail=True))
        cut = len(self._base) + 1
        return {name[cut:]: int(str(one["size"] or 0)) for name, one in found.items() if name.startswith(f"{base}/")}

    def content(self, name: str) -> bytes | None:
        """Return the content of an object; None if there is none."""
        with suppress(FileNotFoundError):
            return self.read(name)
        return None

    def write(self, name: str, data: bytes) -> None:
        """Write an object, which replaces one of that name. Without its bucket, a UserError."""
        self._put(name, lambda: self._files.pipe_file(f"{self._base}/{name}", data))

    def upload(self, name: str, path: Path) -> None:
        """Write an object with the content of a file, which replaces one of that name. Without its bucket, a UserError."""
        self._put(name, lambda: self._files.put_file(str(path), f"{self._base}/{name}"))

    def _put(self, name: str, call: Callable[[], object]) -> None:
        try:
            self._patient(name, call)
        except FileNotFoundError as error:
            cause = " ".join(str(error).split())[:160]
            raise Unreachable(
                f"{self.key}={self.address}: nothing can be written there ({cause}); create the bucket or correct the address"
            ) from None

    def download(self, name: str, path: Path) -> None:
        """Write the content of an object to a file; FileNotFoundError if there is no such object."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._patient(name, lambda: self._files.get_file(f"{self._base}/{name}", str(path)))

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; names of none are passed over."""
        for name in names:
            with suppress(FileNotFoundError):
                self._patient(name, lambda name=name: self._files.rm_file(f"{self._base}/{name}"))  # type: ignore[misc]
