"""Stands in for the hub from which `hf download` fetches, for `cargo xtask bench folder`.

    hub.py DIR    serves the files of DIR, and of no folder in it, as the model `bench/model`; prints its port, serves until it
                  is killed

Of the hub it has what one download asks for: the model's commit, the list of its files, and the files, with ranges. It sends
them itself, in plain text, where the hub redirects to another server.
"""

import hashlib
import json
import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

MODEL = "bench/model"
COMMIT = "c" * 40
MODEL_PATHS = tuple(f"/api/models/{MODEL}/revision/{revision}" for revision in ("main", COMMIT))
TREE_PATHS = tuple(f"/api/models/{MODEL}/tree/{revision}" for revision in ("main", COMMIT))
FILE_PATH = re.compile(rf"/{MODEL}/resolve/(?:main|{COMMIT})/([^/]+)")
RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Hub(BaseHTTPRequestHandler):
    # Connections are used again.
    protocol_version = "HTTP/1.1"
    directory = ""
    # What the hub calls the content of each file: SHA-256, as it does with large files.
    digests = {}

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(has_body=False)

    def do_GET(self):
        self.answer(has_body=True)

    def answer(self, has_body):
        path = unquote(urlsplit(self.path).path)
        file = FILE_PATH.fullmatch(path)
        if file and file[1] in self.digests:
            self.send_file(file[1], has_body)
        elif path in MODEL_PATHS:
            files = [{"rfilename": name} for name in self.digests]
            self.send_json({"id": MODEL, "sha": COMMIT, "private": False, "siblings": files}, has_body)
        elif path in TREE_PATHS:
            self.send_json([self.entry(name) for name in self.digests], has_body)
        else:
            self.send_error(404)

    def entry(self, name):
        size, digest = os.path.getsize(os.path.join(self.directory, name)), self.digests[name]
        large = {"oid": digest, "size": size, "pointerSize": 135}
        return {"type": "file", "path": name, "size": size, "oid": digest[:40], "lfs": large}

    def send_json(self, value, has_body):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if has_body:
            self.wfile.write(body)

    def send_file(self, name, has_body):
        with open(os.path.join(self.directory, name), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            first, end = 0, size
            asked = RANGE.fullmatch(self.headers.get("Range", ""))
            if asked:
                first, end = int(asked[1]), min(size, int(asked[2]) + 1 if asked[2] else size)
                if first >= end:
                    self.send_error(416)
                    return
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(end - first))
            self.send_header("ETag", f'"{self.digests[name]}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if has_body:
                # By sendfile, as a web server would.
                self.wfile.flush()
                self.connection.sendfile(file, first, end - first)


def serve(directory):
    Hub.directory = directory
    names = [entry.name for entry in os.scandir(directory) if entry.is_file()]
    Hub.digests = {name: sha256(os.path.join(directory, name)) for name in sorted(names)}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1])
