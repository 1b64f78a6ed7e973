"""A server on this machine that answers from a tiny model in the format of vLLM's completions."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch


MODEL = "org/teacher"


class CompletionsServer:
    """Answers while it is entered.

    Args:
        model: a causal language model.
        tokenizer: what reads prompts that are text.
        max_logprobs: how many likeliest tokens a request may ask for.
        name: what the model is called.
        faults: called with the request's handler and the right answer, one for each request, the last one for all
            that follow; each writes what is sent instead. None sends the right answer.
    """

    def __init__(self, model, tokenizer=None, max_logprobs=20, faults=(), name=MODEL):
        self.model, self.tokenizer, self.max_logprobs, self.name = model, tokenizer, max_logprobs, name
        self.faults = list(faults)
        self.bodies, self.headers, self.paths = [], [], []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.released = threading.Event()

    def __enter__(self):
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                served.reply(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.released.set()
        self.http.shutdown()
        self.http.server_close()

    @property
    def prompts(self):
        """Those that were token ids, in no order."""
        return [body["prompt"] for body in self.bodies if not isinstance(body["prompt"], str)]

    def reply(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.bodies.append(body)
            self.headers.append(dict(handler.headers))
            self.paths.append(handler.path)
            fault = (self.faults.pop(0) if len(self.faults) > 1 else self.faults[0]) if self.faults else None
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            status, answer = self.answer(body)
        finally:
            with self.lock:
                self.at_once -= 1  # before who asked can ask again
        try:
            if fault is None:
                send(handler, status, json.dumps(answer).encode())
            else:
                fault(handler, answer)
        except (BrokenPipeError, ConnectionResetError):
            pass  # who asked has gone

    def answer(self, body):
        tokens, k = body["prompt"], body["prompt_logprobs"]
        if isinstance(tokens, str):
            tokens = self.tokenizer(tokens, add_special_tokens=body["add_special_tokens"])["input_ids"]
        if body["model"] != self.name:
            return 404, refusal(404, "NotFoundError", f"The model `{body['model']}` does not exist.")
        if k > self.max_logprobs:
            limit = f"greater than max allowed: {self.max_logprobs}"
            return 400, refusal(400, "BadRequestError", f"Requested prompt logprobs of {k}, which is {limit}")
        with self.lock, torch.no_grad():
            log_p = self.model(input_ids=torch.tensor([tokens])).logits[0].float().log_softmax(-1)
        choice = {
            "index": 0,
            "text": " x",
            "logprobs": None,
            "finish_reason": "length",
            "stop_reason": None,
            "token_ids": None,
            "prompt_logprobs": [None, *map(said, log_p[:-1], tokens[1:], [k] * len(tokens))],
            "prompt_token_ids": None,
        }
        usage = {"prompt_tokens": len(tokens), "total_tokens": len(tokens) + 1, "completion_tokens": 1}
        return 200, {"id": "cmpl-0", "object": "text_completion", "created": 0, "model": self.name} | {
            "choices": [choice],
            "usage": {**usage, "prompt_tokens_details": None},
        }


def said(log_p, token, k):
    """The token that stands there and the k likeliest, with ranks from 1."""
    ranked = log_p.sort(descending=True, stable=True).indices.tolist()
    chosen = dict.fromkeys([token, *ranked[:k]])
    return {
        str(each): {
            "logprob": max(log_p[each].item(), -9999.0),  # JSON has no −∞
            "rank": ranked.index(each) + 1,
            "decoded_token": f"w{each}",
        }
        for each in chosen
    }


def refusal(status, kind, message):
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def send(handler, status, content, **headers):
    """One whole answer."""
    handler.send_response(status)
    headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(content)


def status(number, message="busy", **headers):
    """A fault: that status."""
    return lambda handler, answer: send(
        handler, number, json.dumps(refusal(number, "Error", message)).encode(), **headers
    )


def changed(change):
    """A fault: the right answer, changed in place by a function or replaced by what it returns."""

    def fault(handler, answer):
        replaced = change(answer)
        send(handler, 200, json.dumps(answer if replaced is None else replaced).encode())

    return fault
