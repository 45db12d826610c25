"""A hub on loopback: repositories of files, served the way huggingface.co serves them.

    with serve({("dataset", "me/pairs"): {"main": {"train.jsonl": b"..."}}}) as hub:
        subprocess.run([...], env=os.environ | hub.environment(tmp_path))

What a client asks for: `/api/{datasets,models}/ID[/revision/REV]` (commit, files, card), `/api/.../tree/REV[/PATH]`,
`/api/.../refs`, and `/[datasets/]ID/resolve/REV/PATH` (HEAD and GET with ETag, X-Repo-Commit and ranges). A missing
repository, revision or file is a 404 with its X-Error-Code. Each revision is its own commit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

API = re.compile(r"/api/(datasets|models)/([^/]+/[^/]+)(?:/(revision|tree|refs)(?:/([^/]+))?(/.*)?)?")
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
DATE = "2026-01-01T00:00:00.000Z"


def commit_of(kind, name, revision):
    return hashlib.sha1(f"{kind} {name} {revision}".encode(), usedforsecurity=False).hexdigest()


class Hub:
    """The repositories and where they are served; `asked` lists the paths of all requests."""

    def __init__(self, repositories):
        self.repositories = repositories
        self.asked = []
        self.endpoint = ""

    def environment(self, cache):
        """Variables for a fresh process that shall use this hub and an empty cache."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(cache),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": "",
        }

    def files(self, kind, name, revision):
        """Commit and files of a revision, which may be named by its commit; or the error code."""
        revisions = self.repositories.get((kind, name))
        if revisions is None:
            return "RepoNotFound"
        by_commit = {commit_of(kind, name, one): one for one in revisions}
        revision = by_commit.get(revision, revision)
        if revision not in revisions:
            return "RevisionNotFound"
        return commit_of(kind, name, revision), revisions[revision]


@contextlib.contextmanager
def serve(repositories):
    """Serve until the block ends; port and address are in `Hub.endpoint`."""
    hub = Hub(repositories)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        self._error("EntryNotFound")

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(path)
        if match := API.fullmatch(path):
            self._api(*match.groups())
        elif match := RESOLVE.fullmatch(path):
            self._file("dataset" if match[1] else "model", *match.groups()[1:])
        else:
            self._error("EntryNotFound")

    def _api(self, plural, name, what, revision, below):
        kind = plural.removesuffix("s")
        if what == "refs":
            return self._json(
                {
                    "branches": [
                        {
                            "name": "main",
                            "ref": "refs/heads/main",
                            "targetCommit": commit_of(kind, name, "main"),
                        }
                    ],
                    "converts": [],
                    "tags": [],
                }
            )
        found = self.hub.files(kind, name, revision or "main")
        if isinstance(found, str):
            return self._error(found)
        commit, files = found
        if what == "tree":
            start = (below or "").strip("/")
            tree = [
                {"type": "file", "path": path, "size": len(data), "oid": _etag(data)}
                for path, data in sorted(files.items())
                if path.startswith(start)
            ]
            return self._json(tree)
        return self._json({
            "_id": "1", "id": name, "modelId": name, "author": name.split("/")[0], "sha": commit, "lastModified": DATE, "createdAt": DATE,
            "private": False, "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": [],
            "siblings": [{"rfilename": path} for path in sorted(files)], "cardData": _card(files),
        })  # fmt: skip

    def _file(self, kind, name, revision, path):
        found = self.hub.files(kind, name, revision)
        if isinstance(found, str):
            return self._error(found)
        commit, files = found
        if path not in files:
            return self._error("EntryNotFound", commit)
        data = files[path]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, stop = (int(wanted[1]), int(wanted[2] or len(data) - 1) + 1) if wanted else (0, len(data))
        headers = {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return self._send(
            206 if wanted else 200, data[start:stop], headers | {"Content-Type": "application/octet-stream"}
        )

    def _json(self, document):
        self._send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _error(self, code, commit=None):
        # The hub answers 401 for a repository that a stranger asks for and that may or may not be there.
        status = 401 if code == "RepoNotFound" else 404
        headers = {"X-Error-Code": code, "X-Error-Message": code, "Content-Type": "application/json"}
        self._send(
            status,
            json.dumps({"error": code}).encode(),
            headers | ({"X-Repo-Commit": commit} if commit else {}),
        )

    def _send(self, status, data, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(data)


def _etag(data):
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _card(files):
    """The YAML head of README.md, as the hub puts it into its answer."""
    import yaml

    parts = files.get("README.md", b"").decode().split("---")
    return yaml.safe_load(parts[1]) if len(parts) > 2 else {}
