"""Damages a set of the heat equation so that its hashes still agree, and returns what is found."""

import json
from dataclasses import replace

from pidscale.files import file_sha256, write_atomic
from pidscale.inspect.verify import verify
from pidscale.records.check import load_manifest
from pidscale.records.format import index_name, sample_key
from pidscale.records.manifest import Manifest
from pidscale.records.read import ShardSet
from pidscale.records.write import write_shard

TAR, INDEX = "train-00001.tar", "train-00001.index.json"  # samples 16 to 31 of 48


def put(root, manifest, **changes):
    """Write a manifest with changed values and a matching data hash."""
    plain = replace(manifest, **changes).to_json()
    write_atomic(root / "manifest.json", json.dumps(plain).encode())
    return Manifest.from_json(json.loads(json.dumps(plain)))


def rehash(root):
    """Update the manifest to the sizes and hashes of the files."""
    manifest = load_manifest(root)
    splits = {}
    for name, split in manifest.splits.items():
        entries = [
            replace(
                e,
                bytes=(root / e.name).stat().st_size,
                sha256=file_sha256(root / e.name),
                index_sha256=file_sha256(root / index_name(e.name)),
            )
            for e in split.shards
        ]
        splits[name] = replace(split, shards=tuple(entries))
    put(root, manifest, splits=splits)


def rewritten(root, change):
    """Write train-00001 again with samples changed by `change(number, fields, meta)`, and update all hashes."""
    shards = ShardSet(root, "train")
    samples = [(n, shards.read([n])[0], json.loads(json.dumps(shards.meta(n)))) for n in range(16, 32)]
    write_shard(root, "train", 1, [(sample_key(n), *change(n, fields, meta)) for n, fields, meta in samples])
    rehash(root)


def findings(root):
    report = verify(root)
    assert not [line for line in (*report.findings, *report.notes) if "\n" in line]
    return report.findings


def named(lines, *parts):
    """Assert that exactly one line contains all parts."""
    assert len([line for line in lines if all(str(part) in line for part in parts)]) == 1, lines


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
