"""A server on this machine that answers in the format of text-embeddings-inference."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

from tests.teachers.completions_server import send


class EmbeddingsServer:
    """Answers while it is entered, by the mean of a random vector for each character.

    Args:
        width: of the vectors.
    """

    def __init__(self, width):
        self.vectors = torch.randn(256, width, generator=torch.Generator().manual_seed(0))

    def __enter__(self):
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                said = [served.vectors[list(text.encode())].mean(0).tolist() for text in body["inputs"]]
                send(self, 200, json.dumps(said).encode())

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.http.shutdown()
        self.http.server_close()
