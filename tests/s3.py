"""An S3 server on this machine, behind a connection that tests can cut."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
BUCKET = "fields"


class Line:
    """Forwards connections to a port; while it is cut, it drops open connections and refuses new ones."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.open = True
        self.carried = 0  # bytes from the server
        self.pairs: list[socket.socket] = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self.listening.accept()
            except OSError:
                return
            if not self.open:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self.target))
            self.pairs += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other, one is far), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(2**16):
                self.carried += len(data) * counted
                other.sendall(data)
        self._hang_up([one, other])

    def _hang_up(self, sockets: list[socket.socket]) -> None:
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def cut(self) -> None:
        self.open = False
        pairs = self.pairs
        self.pairs = []
        self._hang_up(pairs)

    def mend(self) -> None:
        self.open = True

    def close(self) -> None:
        self.cut()
        self.listening.close()


class Server:
    """The process of the server, the line to it, and a client that bypasses the line."""

    def __init__(self) -> None:
        import boto3

        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        address = f"http://127.0.0.1:{port}"
        self.client: Any = boto3.client("s3", endpoint_url=address)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.client.create_bucket(Bucket=BUCKET)
                break
            except Exception:
                assert time.monotonic() < deadline and self.process.poll() is None
                time.sleep(0.2)
        self.line = Line(port)

    @property
    def environment(self) -> dict[str, str]:
        return ENVIRONMENT | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.line.port}"}

    def upload(self, folder: Path, name: str) -> str:
        """Upload a set; return its address."""
        for path in sorted(folder.iterdir()):
            self.put(f"{name}/{path.name}", path.read_bytes())
        return f"s3://{BUCKET}/{name}"

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def close(self) -> None:
        self.line.close()
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Run a server while the body runs, with the environment variables that clients need."""
    import s3fs

    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    s3fs.S3FileSystem.clear_instance_cache()  # of a server before this one
    server = Server()
    os.environ.update(server.environment)
    try:
        yield server
    finally:
        server.close()
        os.environ.clear()
        os.environ.update(before)
