"""The part of the Hugging Face hub's interface that its client needs for models, on this machine.

Files that the hub keeps in LFS (safetensors) go through the LFS protocol, the others through the commit. One token may write;
repositories whose name ends in `-private` or `-gated` are read with it alone, and of `-broken` the server fails.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_tests"


@dataclass
class Hub:
    """What the server holds: commits of each repository, oldest first, by name of their files."""

    port: int = 0
    commits: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    stored: dict[str, bytes] = field(default_factory=dict)  # what came by LFS, by SHA-256
    asked: list[str] = field(default_factory=list)  # method and path of each request

    def environment(self, home: Path, token: str | None = TOKEN, **own: str) -> dict[str, str]:
        """Environment of a process whose client talks to this server, with a cache and a log-in of its own."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        own |= {"HF_ENDPOINT": f"http://127.0.0.1:{self.port}", "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
        return (
            kept
            | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
            | own
            | ({"HF_TOKEN": token} if token else {})
        )

    def number(self, repository: str, revision: str) -> int | None:
        """Index of the commit that a revision names."""
        count = len(self.commits[repository])
        names = {"main": count - 1, "first": 0} | {sha(repository, index): index for index in range(count)}
        return names.get(revision)


def sha(repository: str, number: int) -> str:
    return hashlib.sha1(f"{repository} {number}".encode()).hexdigest()


def described(name: str, data: bytes) -> dict[str, Any]:
    found = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if name.endswith(".safetensors"):
        found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return found


class Answers(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: Any) -> None:
        pass

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, data: Any, status: int = 200, **headers: str) -> None:
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status: int, code: str, text: str) -> None:
        self.answer({"error": text}, status, X_Error_Code=code, X_Error_Message=text)

    def may(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def known(self, repository: str) -> bool:
        """Whether a repository may be read; refuses otherwise, as the hub does: private ones seem not to exist."""
        if repository.endswith("-broken"):
            self.answer({"error": "out of order"}, 500)
            return False
        if repository.endswith("-gated") and not self.may():
            self.refuse(401, "GatedRepo", "Access to this model is restricted")
            return False
        hidden = repository.endswith("-private") and not self.may()
        if repository not in self.hub.commits or hidden:
            self.refuse(404 if self.may() else 401, "RepoNotFound", "Repository not found")
            return False
        return True

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            repository, what, revision = found[1], found[2], found[3] or "main"
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repository, what, revision = found[1], found[3], found[2]
        else:
            return self.refuse(404, "NotHere", f"no such address: {path}")
        if not self.known(repository):
            return None
        number = self.hub.number(repository, revision)
        if number is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = self.hub.commits[repository][number]
        commit = sha(repository, number)
        if what == "tree":
            return self.answer([described(name, data) for name, data in files.items()])
        if what in (None, "revision"):
            siblings = [{"rfilename": name} for name in files]
            return self.answer({"id": repository, "sha": commit, "siblings": siblings, "private": False, "tags": []})
        if what not in files:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        return self.answer(files[what], ETag=f'"{described(what, files[what])["oid"]}"', X_Repo_Commit=commit)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        data = self.body()
        self.hub.asked.append(f"PUT {self.path}")
        self.hub.stored[hashlib.sha256(data).hexdigest()] = data
        self.answer({})

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        data = self.body()
        self.hub.asked.append(f"POST {path}")
        if path == "/api/validate-yaml":
            yaml.safe_load(json.loads(data)["content"].split("---")[1])
            return self.answer({"errors": [], "warnings": []})
        if not self.may():
            return self.refuse(401, "Unauthorized", "Invalid username or password.")
        if path == "/api/repos/create":
            return self.create(json.loads(data))
        found = re.fullmatch(r"/(?:api/models/)?([^/]+/[^/]+?)(?:\.git/info)?/(preupload|commit|lfs)/.+", path)
        if not found or not self.known(found[1]):
            return None if found else self.refuse(404, "NotHere", f"no such address: {path}")
        if found[2] == "preupload":
            modes = [(one["path"], one["path"].endswith(".safetensors")) for one in json.loads(data)["files"]]
            files = [{"path": name, "uploadMode": "lfs" if big else "regular"} for name, big in modes]
            return self.answer({"files": [one | {"shouldIgnore": False} for one in files]})
        if found[2] == "lfs":
            href = self.address("lfs")
            objects = [one | {"actions": {"upload": {"href": href}}} for one in json.loads(data)["objects"]]
            return self.answer({"transfer": "basic", "objects": objects})
        return self.commit(found[1], [json.loads(line) for line in data.splitlines()])

    def create(self, wanted: dict[str, Any]) -> None:
        repository = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] != "org":
            return self.refuse(403, "Forbidden", "You don't have the rights to create a model under this namespace")
        if repository in self.hub.commits:
            return self.answer({"error": "You already created this model repo", "url": self.address(repository)}, 409)
        self.hub.commits[repository] = [{".gitattributes": b"*.safetensors filter=lfs\n"}]
        if wanted.get("visibility") == "private":
            self.hub.private.add(repository)
        return self.answer({"url": self.address(repository)})

    def commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.hub.commits[repository][-1])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.hub.commits[repository].append(files)
        oid = sha(repository, len(self.hub.commits[repository]) - 1)
        address = f"{self.address(repository)}/commit/{oid}"
        self.answer({"success": True, "commitOid": oid, "commitUrl": address})

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.hub.port}/{path}"


@contextlib.contextmanager
def running() -> Iterator[Hub]:
    """Run a hub while the body runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OfThisHub", (Answers,), {"hub": hub}))
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
