"""Opening the store of a path as users write it: a folder, or an address such as s3://bucket/set. Knows paths only."""

from __future__ import annotations

from pathlib import Path

from pidscale.paths import expanded, is_address
from pidscale.records.stores.base import Store
from pidscale.records.stores.folder import Folder


def open_store(path: str | Path | Store, patience: float = 300.0) -> Store:
    """Return the store of a folder or an address.

    Args:
        path: The folder or the address; a store is returned unchanged.
        patience: The seconds for which a remote store may be unavailable.

    Returns:
        The store.
    """
    if not isinstance(path, (str, Path)):
        return path
    if not is_address(path):
        return Folder(expanded(path, "path"))
    from pidscale.records.stores.remote import Remote

    return Remote(str(path), patience)
