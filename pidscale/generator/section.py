"""A section of a card's JSON values, read key by key and checked. Every error is one line that names the file and the key.

Knows no generators and no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from pidscale.config import UserError, exact

REMEDY = "copy the folder again from where it was made"
_SHOWN = 60  # characters of a wrong value that a message shows
_LONGEST_NAME = 200  # characters
_LONGEST_LIST = 10**6
_LARGEST = 1e15  # bound of seconds, steps and residuals


class Section:
    """A mapping with string keys. Its methods return the checked value of a key, or raise UserError.

    Args:
        where: The file, for messages.
        name: Dotted name of the section within the file; empty for the whole file.
        plain: The JSON value, which must be a mapping.
    """

    def __init__(self, where: str, name: str, plain: Any) -> None:
        self.where = where
        self.name = name
        if not isinstance(plain, Mapping):
            self.refuse(None, plain, "a section with keys")
        self.plain: Mapping[str, Any] = plain

    def refuse(self, key: str | None, value: Any, expected: str) -> NoReturn:
        """Raise the error of a wrong value.

        Args:
            key: The key; None for the section itself.
            value: The value that was found.
            expected: What was expected.

        Raises:
            UserError: Always.
        """
        shown = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        raise UserError(f"{self.where}: {self._full_name(key)!r} is {shown}, expected {expected}; {REMEDY}")

    def get(self, key: str) -> Any:
        """Return the value of a key as it is.

        Args:
            key: The key.

        Returns:
            The JSON value.

        Raises:
            UserError: When the key is missing.
        """
        if key not in self.plain:
            raise UserError(f"{self.where}: {self._full_name(key)!r} is missing; {REMEDY}")
        return self.plain[key]

    def has(self, key: str) -> bool:
        """Return whether a key is present and not null."""
        return self.plain.get(key) is not None

    def section(self, key: str) -> Section:
        """Return a mapping as a section."""
        return Section(self.where, self._full_name(key), self.get(key))

    def text(self, key: str) -> str:
        """Return a string."""
        value = self.get(key)
        if not isinstance(value, str) or len(value) > _LONGEST_NAME:
            self.refuse(key, value, f"a string of at most {_LONGEST_NAME} characters")
        return value

    def number(self, key: str, least: float = -_LARGEST, most: float = _LARGEST) -> float:
        """Return a finite number between two bounds."""
        return self._number(key, self.get(key), least, most)

    def numbers(self, key: str, least: float = -_LARGEST, most: float = _LARGEST) -> tuple[float, ...]:
        """Return a list of finite numbers between two bounds."""
        return tuple(self._number(key, value, least, most) for value in self.listed(key))

    def whole(self, key: str, least: int = 0, most: int = 2**62) -> int:
        """Return a whole number between two bounds."""
        return self._whole(key, self.get(key), least, most)

    def wholes(self, key: str, least: int, most: int) -> tuple[int, ...]:
        """Return a list of whole numbers between two bounds."""
        return tuple(self._whole(key, value, least, most) for value in self.listed(key))

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings."""
        values = self.listed(key)
        for value in values:
            if not isinstance(value, str) or len(value) > _LONGEST_NAME:
                self.refuse(key, value, "a list of names")
        return tuple(values)

    def listed(self, key: str) -> list[Any]:
        """Return a list of at most a million values."""
        value = self.get(key)
        if not isinstance(value, list) or len(value) > _LONGEST_LIST:
            self.refuse(key, value, "a list")
        return list(value)

    def mapping(self, key: str) -> dict[str, Any]:
        """Return a mapping whose contents are not checked."""
        return dict(self.section(key).plain)

    def _full_name(self, key: str | None) -> str:
        """Return the dotted name of a key within the file."""
        return ".".join(part for part in (self.name, key) if part)

    def _number(self, key: str, value: Any, least: float, most: float) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not least <= value <= most:  # false for NaN
            self.refuse(key, value, f"a number from {exact(least)} to {exact(most)}")
        return float(value)

    def _whole(self, key: str, value: Any, least: int, most: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.refuse(key, value, f"a whole number from {least} to {most}")
        return value
