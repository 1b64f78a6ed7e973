"""A Hub on this machine: as much of its HTTP interface as creating, committing to and reading a repository takes."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Repository(BaseHTTPRequestHandler):
    """Answers as huggingface.co does. Files are kept by path; large ones come through Git LFS."""

    files: dict[str, bytes]
    uploads: dict[str, bytes]
    tokens: set[str]

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.tokens.add(self.headers.get("Authorization", ""))
        if self.path == "/api/repos/create":
            self._json({"url": f"{self._origin()}/user/student", "name": "user/student", "id": "user/student"})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            asked = [file["path"] for file in json.loads(body)["files"]]
            modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in asked}
            self._json({"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            self._lfs_batch(json.loads(body))
        elif "/commit/" in self.path:
            self._commit(body)
        else:
            self._missing()

    def _lfs_batch(self, asked):
        objects = [
            {**each, "authenticated": True, "actions": {"upload": {"href": f"{self._origin()}/upload/{each['oid']}"}}}
            for each in asked["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, body):
        for line in filter(None, body.decode().splitlines()):
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.files[value["path"]] = self.uploads[value["oid"]]
        url = f"{self._origin()}/user/student/commit/{COMMIT}"
        self._json({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        oid = hashlib.sha256(content).hexdigest()
        assert self.path.endswith(oid)
        self.uploads[oid] = content
        self._send(200, b"")

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/") and "/tree/" not in path:
            files = [{"rfilename": name} for name in self.files]
            self._json({"id": "user/student", "modelId": "user/student", "sha": COMMIT, "siblings": files, "tags": []})
        elif "/resolve/" in path:
            content = self.files.get(path.split("/resolve/")[1].partition("/")[2])
            self._missing() if content is None else self._file(content)
        else:
            self._missing()

    do_HEAD = do_GET

    def _file(self, content):
        self._send(200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def _json(self, answer):
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _missing(self):
        self._send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "no such file"})

    def _send(self, status, content, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _origin(self):
        return f"http://{self.headers['Host']}"

    def log_message(self, *args):
        pass


@contextmanager
def hub():
    """A running Hub: its address, the files that were pushed to it, and the tokens that were shown."""
    handler = type("Handler", (Repository,), {"files": {}, "uploads": {}, "tokens": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.files, handler.tokens
    finally:
        server.shutdown()
        server.server_close()
