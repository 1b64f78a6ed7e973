"""A server that stalls, fails, talks without end or says nonsense, and what is left of it: one error of ours."""

import gzip
import json
import time
from threading import Event, Thread

import pytest
import torch

from hf_distill import ServedTeacher
from hf_distill.errors import ConfigurationError, TeacherServerError
from hf_distill.heads import CausalLMHead
from hf_distill.teachers import json_over_http
from hf_distill.teachers.json_over_http import JSONServer
from tests.teachers.completions_server import MODEL, CompletionsServer, send, status
from tests.tiny_models import PaddingCollator, llama, rows_for


BODY = {"model": MODEL, "prompt": [3, 4, 5], "prompt_logprobs": 2}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(json_over_http, "FIRST_DELAY", 0.01)


def asked(server, retries=2, timeout=5.0, max_bytes=10**5, **options):
    return JSONServer(f"{server.url}/completions", timeout, retries, **options).post(BODY, max_bytes)


def right(handler, answer):

    send(handler, 200, json.dumps(answer).encode())


def stall(server):
    """A fault: not a byte until the test is over."""
    return lambda handler, answer: server().released.wait(30)


def begin(handler, length):
    handler.send_response(200)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()


def cut_off(handler, answer):
    begin(handler, 1000)
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def half_of_it(handler, answer):
    send(handler, 200, b'{"choices": [{"index": 0, "prompt_log')


def nested(handler, answer):
    send(handler, 200, b"[" * 50_000)


def in_gzip(handler, answer):

    send(handler, 200, gzip.compress(b"0" * 1000), Content_Encoding="gzip")


def without_end(handler, answer):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 4096)


def drip(handler, answer):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        time.sleep(0.02)


def too_long(handler, answer):
    begin(handler, 10**12)


def elsewhere(handler, answer):
    send(handler, 307, b"", Location="http://127.0.0.1:1/v1/completions")


def test_a_server_that_recovers_is_asked_again():
    faults = [status(500), status(503), cut_off, half_of_it, status(429), right]
    with CompletionsServer(llama(layers=2), faults=faults) as server:
        assert asked(server, retries=5)["choices"][0]["prompt_logprobs"][0] is None
        assert len(server.bodies) == 6


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (status(500, "out of memory"), r"in 3 attempts; the last one gave status 500: .*out of memory"),
        (cut_off, r"in 3 attempts; the last one gave .*RemoteProtocolError"),
        (half_of_it, r"in 3 attempts; the last one gave an answer of 37 bytes that is no JSON"),
        (nested, r"that is no JSON"),
        (in_gzip, r"that is no JSON"),
    ],
)
def test_a_fault_that_stays_is_one_error_after_all_attempts(fault, message):
    with CompletionsServer(llama(layers=2), faults=[fault]) as server:
        with pytest.raises(TeacherServerError, match=message) as caught:
            asked(server)
        assert f"{server.url}/completions" in str(caught.value)
        assert "`retries=`" in str(caught.value)
        assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (status(400, "max allowed: 20"), r"refuses, status 400: .*max allowed: 20.*`top_k=`"),
        (status(401), "refuses, status 401: .*Pass the right `api_key=`"),
        (status(404), "refuses, status 404: .*Compare `url=` and `model=`"),
        (elsewhere, "refuses, status 307"),
        (without_end, r"with status 200, in a body without end, and no right answer has more than 100000"),
        (too_long, r"in 1000000000000 bytes, and no right answer has more than 100000"),
    ],
)
def test_what_does_not_pass_is_not_asked_again(fault, message):
    with CompletionsServer(llama(layers=2), faults=[fault]) as server:
        with pytest.raises(TeacherServerError, match=message):
            asked(server)
        assert len(server.bodies) == 1


@pytest.mark.parametrize("slow", ["stall", "drip"])
def test_a_server_that_stalls_or_drips_costs_its_time_and_no_more(slow):
    with CompletionsServer(llama(layers=2)) as server:
        server.faults = [stall(lambda: server) if slow == "stall" else drip]
        start = time.monotonic()
        with pytest.raises(TeacherServerError, match=r"in 2 attempts; .* no whole answer within 0\.3 seconds"):
            asked(server, retries=1, timeout=0.3)
        assert time.monotonic() - start < 3
        assert len(server.bodies) == 2


def test_nobody_listens():
    with CompletionsServer(llama(layers=2)) as server:
        pass
    with pytest.raises(TeacherServerError, match=r"in 3 attempts; the last one gave .*ConnectError"):
        asked(server)


def test_pauses_double_and_a_server_may_ask_for_longer_ones(monkeypatch):
    pauses = []
    monkeypatch.setattr(json_over_http, "FIRST_DELAY", 0.5)
    monkeypatch.setattr(json_over_http, "LONGEST_DELAY", 3.0)
    stopped = Event()
    monkeypatch.setattr(stopped, "wait", lambda seconds: pauses.append(seconds) or False)
    faults = [status(500), status(429, Retry_After="2"), status(429, Retry_After="4000"), status(500)]
    with (
        CompletionsServer(llama(layers=2), faults=faults) as server,
        pytest.raises(TeacherServerError, match="in 6 attempts"),
    ):
        JSONServer(f"{server.url}/completions", 5.0, 5).post(BODY, 10**5, stopped)
    assert pauses == [0.5, 2.0, 5.0, 3.0, 3.0]


def test_who_is_stopped_does_not_ask_again(monkeypatch):
    monkeypatch.setattr(json_over_http, "FIRST_DELAY", 30.0)
    stopped, errors = Event(), []

    def ask(server):
        try:
            JSONServer(f"{server.url}/completions", 5.0, 9).post(BODY, 10**5, stopped)
        except TeacherServerError as error:
            errors.append(error)

    with CompletionsServer(llama(layers=2), faults=[status(500)]) as server:
        thread = Thread(target=ask, args=(server,))
        thread.start()
        stopped.set()
        thread.join(10)
        assert not thread.is_alive()
    assert len(errors) == 1
    assert len(server.bodies) <= 1


def test_secrets_are_in_no_message():
    with CompletionsServer(llama(layers=2), faults=[status(500, "Bearer swordfish and hunter2")]) as server:
        with pytest.raises(TeacherServerError) as caught:
            asked(server, retries=0, api_key="swordfish")
        assert server.headers[0]["Authorization"] == "Bearer swordfish"
        address = server.url.replace("http://", "http://someone:hunter2@") + "/completions"
        with pytest.raises(TeacherServerError) as with_login:
            JSONServer(address, 5.0, 0).post(BODY, 10**5)
        assert server.headers[1]["Authorization"].startswith("Basic ")
    assert "swordfish" not in str(caught.value)
    assert "hunter2" not in str(with_login.value)
    assert "***" in str(with_login.value)
    with pytest.raises(ConfigurationError, match="brings a user and password, and there is an API key") as both:
        JSONServer(address, 5.0, 0, api_key="swordfish")
    assert "hunter2" not in str(both.value)


ADDRESSES = "file:///etc/passwd ftp://h/v1 h:8000 http:// http://h/v1?key=s3cret http://h/#a http://h:x/ http://a|b/"


@pytest.mark.parametrize("url", ADDRESSES.split())
def test_only_addresses_of_http_are_taken(url):
    with pytest.raises(ConfigurationError, match="`url` must be the http or https address") as caught:
        ServedTeacher(url, MODEL)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("key", ["swordfish\nHost: other", "swörd", "sword fish"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(key):
    with pytest.raises(ConfigurationError, match="the API key has characters that no header carries") as caught:
        ServedTeacher("http://h", MODEL, api_key=key)
    assert key[:5] not in str(caught.value)


def test_a_teacher_survives_a_server_that_is_down_for_a_while():
    batch = PaddingCollator()(rows_for("causal")[:2])
    with CompletionsServer(llama(layers=2)) as server:
        teacher = ServedTeacher(server.url, MODEL, retries=3)
        teacher.meet(llama(), CausalLMHead())
        expected = teacher.signals(batch).logits
        server.faults = [status(503), cut_off, half_of_it, right]
        found = teacher.signals(batch).logits
    assert torch.equal(found.values, expected.values)
