"""A server on this machine from which files are downloaded: a plain one, the Hugging Face hub, or a package index.

It sends what is registered. For each address it can be told how to fail in the next answers, or in all of them.
"""

import gzip
import hashlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PATIENCE_SECONDS = 60
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Answer(BaseHTTPRequestHandler):
    """One request, and the ways in which it may be answered."""

    def do_GET(self):
        owner: Server = self.server.owner
        path = self.path.partition("?")[0]
        owner.requests.append((self.command, path, self.headers.get("Range"), self.headers.get("Authorization")))
        if path not in owner.contents:
            self.status(404)
            return
        waiting = owner.behaviours.get(path, [])
        behaviour = waiting.pop(0) if len(waiting) > 1 else (waiting or [healthy])[0]
        behaviour(self, owner.contents[path])

    do_HEAD = do_GET  # noqa: N815

    def status(self, number: int, **headers: str) -> None:
        self.send(number, f"{number}\n".encode(), **headers)

    def send(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        """Send a status, headers (with - for _) and a body; ``length`` is what it is said to be, −1 for nothing."""
        self.send_response(status)
        length = len(body) if length is None else length
        for name, value in {**headers, **({"Content-Length": str(length)} if length >= 0 else {})}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.wfile.flush()

    def range(self, content: bytes) -> tuple[int, dict, int]:
        """Status, headers and first byte of the answer to a request with or without a range."""
        asked = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        if not asked or self.headers.get("If-Range", tag) != tag:
            return 200, {"ETag": tag}, 0
        start = int(asked)
        if start >= len(content):
            return 416, {"Content_Range": f"bytes */{len(content)}"}, len(content)
        return 206, {"ETag": tag, "Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}, start

    def log_message(self, *_):
        pass


Behaviour = Callable[[Answer, bytes], None]


def healthy(answer: Answer, content: bytes) -> None:
    status, headers, start = answer.range(content)
    answer.send(status, content[start:], **headers)


def stops(answer: Answer, content: bytes) -> None:
    """Sends half of what is missing and closes the connection."""
    status, headers, start = answer.range(content)
    rest = content[start:]
    answer.send(status, rest[: len(rest) // 2], length=len(rest), **headers)


def stops_unnoticed(answer: Answer, content: bytes) -> None:
    """Sends half of the file and closes the connection, and has not said how much would come."""
    answer.send(200, content[: len(content) // 2], length=-1)


def slowly(answer: Answer, content: bytes) -> None:
    """Sends 50 kB/s."""
    answer.send(200, b"", length=len(content))
    for start in range(0, len(content), 1000):
        answer.wfile.write(content[start : start + 1000])
        if answer.server.owner.closing.wait(0.02):
            return


def compressed(answer: Answer, content: bytes) -> None:
    """Sends compressed bytes to clients that take them."""
    if "gzip" in answer.headers.get("Accept-Encoding", ""):
        answer.send(200, gzip.compress(content), Content_Encoding="gzip")
    else:
        healthy(answer, content)


def stalls(answer: Answer, content: bytes) -> None:
    """Sends half of what is missing and then nothing, until the server is closed."""
    stops(answer, content)
    answer.server.owner.wait()


def trickles(answer: Answer, content: bytes) -> None:
    """Sends a byte now and then, often enough for any time-out."""
    answer.send(200, b"", length=len(content))
    for byte in content[: int(PATIENCE_SECONDS / 0.05)]:
        answer.wfile.write(bytes([byte]))
        if answer.server.owner.closing.wait(0.05):
            return
    answer.server.owner.outwaited = True


def silent(answer: Answer, content: bytes) -> None:
    """Takes the request and does not answer, until the server is closed."""
    answer.server.owner.wait()


def closes(answer: Answer, content: bytes) -> None:
    """Closes the connection without an answer."""


def wrong(answer: Answer, content: bytes) -> None:
    """Sends other bytes of the right size."""
    healthy(answer, content[:-1] + bytes([content[-1] ^ 1]))


def long(answer: Answer, content: bytes) -> None:
    """Sends more bytes than there are, and does not say how many."""
    answer.send(200, content + b"more", length=-1)


def without_length(answer: Answer, content: bytes) -> None:
    answer.send(200, content, length=-1)


def without_ranges(answer: Answer, content: bytes) -> None:
    answer.send(200, content)


def in_chunks(answer: Answer, content: bytes) -> None:
    """Chunked encoding, which says nothing of the length."""
    answer.protocol_version = "HTTP/1.1"
    chunks = [content[i : i + 1000] for i in range(0, len(content), 1000)] + [b""]
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    answer.send(200, body, length=-1, Transfer_Encoding="chunked", Connection="close")
    answer.close_connection = True


def status(number: int) -> Behaviour:
    return lambda answer, content: answer.status(number)


def redirects(path: str) -> Behaviour:
    return lambda answer, content: answer.status(302, Location=path)


class Server:
    """Files by their path. ``requests`` holds (method, path, Range, Authorization) of all requests."""

    def __init__(self):
        self.contents: dict[str, bytes] = {}
        self.behaviours: dict[str, list[Behaviour]] = {}
        self.requests: list[tuple[str, str, str | None, str | None]] = []
        self.closing, self.outwaited = threading.Event(), False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._server.owner = self
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        assert not self.outwaited, f"the client did not leave a server that was silent for {PATIENCE_SECONDS} s"

    def wait(self) -> None:
        """Wait until the server is closed. A client that waits for longer than a minute makes the test fail."""
        self.outwaited |= not self.closing.wait(PATIENCE_SECONDS)

    def file(self, path: str, content: bytes) -> str:
        """Offer a file; returns its address."""
        self.contents[path] = content
        return self.address + path

    def behave(self, path: str, *behaviours: Behaviour) -> None:
        """Answer the next requests for a path so, and all further ones like the last."""
        self.behaviours[path] = list(behaviours)

    def repository(self, name: str, files: dict[str, bytes], commit: str = COMMIT, kind: str = "model") -> list[str]:
        """Offer a repository as the hub does, large files behind a redirect; returns the paths of their contents."""
        prefix, tree, paths = "/datasets" if kind == "dataset" else "", [], []
        for path, content in files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            sha256 = hashlib.sha256(content).hexdigest()
            large = not path.endswith(".json")
            entry = {"type": "file", "path": path, "size": len(content), "oid": blob}
            tree.append({**entry, "lfs": {"oid": sha256, "size": len(content)}} if large else entry)
            resolve = f"{prefix}/{name}/resolve/{commit}/{path}"
            paths.append(f"/cdn/{sha256}" if large else resolve)
            self.file(resolve, content)
            if large:
                self.file(f"/cdn/{sha256}", content)
                self.behave(resolve, redirects(f"/cdn/{sha256}"))
        api = f"/api/{kind}s/{name}"
        self.file(f"{api}/tree/{commit}", json.dumps(tree).encode())
        self.file(f"{api}/revision/main", json.dumps({"sha": commit}).encode())
        return paths

    def wheel(self, path: Path) -> str:
        """Offer a wheel as a package index does; returns its path."""
        package, content = path.name.partition("-")[0].replace("_", "-"), path.read_bytes()
        link = f"../../files/{path.name}#sha256={hashlib.sha256(content).hexdigest()}"
        self.file(f"/simple/{package}/", f'<!DOCTYPE html><a href="{link}">{path.name}</a>'.encode())
        self.behave(f"/simple/{package}/", lambda answer, page: answer.send(200, page, Content_Type="text/html"))
        self.file(f"/files/{path.name}", content)
        return f"/files/{path.name}"

    def asked(self, path: str) -> list[str | None]:
        """The ranges of the GET requests for a path."""
        return [found for method, asked, found, _ in self.requests if (method, asked) == ("GET", path)]
