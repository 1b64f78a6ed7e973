"""Asking a server in JSON: for so long, so often and for so many bytes, and no further."""

import json
import re
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from threading import Event
from time import monotonic
from typing import Any
from urllib.parse import unquote, urlsplit

from hf_distill.errors import ConfigurationError, TeacherServerError


FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds before a second attempt, doubled before each further one, and the most that they become."""

RETRIED_STATUSES = frozenset({408, 409, 425, 429})
"""Of the client's own faults, those that pass; a server's own faults, from 500 on, all may."""

_HOST = re.compile(r"[\w.:%-]+")

_NUM_SHOWN = 300
"""Characters of what a server says that an error shows."""

_REMEDIES = {
    401: "Pass the right `api_key=`",
    403: "Pass the right `api_key=`",
    404: "Compare `url=` and `model=` with what the server was started with",
    422: "The server speaks another dialect than vLLM's completions",
}


class _Slow(Exception):
    """An answer that trickles in beyond its time."""


class JSONServer:
    """One address that takes JSON and answers in JSON. Threads may share it.

    Args:
        url: http or https. A user and password in it become a header, and are kept out of messages.
        timeout: seconds to wait for a connection, for the beginning of an answer, and for the whole of it.
        retries: further attempts, each after a longer pause, where there is no whole answer, no JSON, or a status that
            may pass.
        api_key: sent as a bearer token; kept out of messages.

    Raises:
        ConfigurationError: if the URL is none of http or https, or holds more than an address.
    """

    def __init__(self, url: str, timeout: float, retries: int, api_key: str | None = None) -> None:
        self.url, self._login = _address(url)
        if api_key and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise ConfigurationError(
                "the API key has characters that no header carries. Pass it as `api_key=`, without blanks and line "
                "ends."
            )
        self.timeout, self.retries = timeout, retries
        self._api_key = api_key
        if self._login and api_key:
            raise ConfigurationError(
                f"`url` {self.url!r} brings a user and password, and there is an API key, and a request carries one "
                "of them. Leave one out."
            )

    @cached_property
    def _http(self) -> Any:
        """The library that huggingface_hub brings: httpx2 from its version 2 on, httpx before."""
        return import_module("httpx2" if find_spec("httpx2") else "httpx")

    @cached_property
    def _client(self) -> Any:
        headers = {"Accept-Encoding": "identity"}  # what is unpacked could be larger than what is counted
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        return self._http.Client(headers=headers, auth=self._login, timeout=self.timeout)

    def open(self) -> None:
        """Get ready, before threads ask."""
        _ = self._client

    def post(self, body: Any, max_bytes: int, stopped: Event | None = None) -> Any:
        """What the server answers to a body.

        Args:
            max_bytes: the largest answer that is taken in.
            stopped: when it is set, there is no further attempt.

        Raises:
            TeacherServerError: if it does not answer, refuses, or answers with more or with anything but JSON.
        """
        content = json.dumps(body).encode()
        problem, delay = "", 0.0
        for attempt in range(self.retries + 1):
            if attempt and (stopped or Event()).wait(delay):
                break
            delay = min(FIRST_DELAY * 2**attempt, LONGEST_DELAY)
            try:
                status, said, asked_delay = self._exchange(content, max_bytes)
            except (self._http.TimeoutException, _Slow):
                problem = f"no whole answer within {self.timeout:g} seconds"
                continue
            except self._http.TransportError as error:
                problem = self._without_secrets(f"{type(error).__name__}: {error}")
                continue
            if status == 200:
                try:
                    return json.loads(said)
                except (ValueError, RecursionError) as error:
                    problem = f"an answer of {len(said)} bytes that is no JSON: {self._without_secrets(str(error))}"
                    continue
            problem = f"status {status}: {self._without_secrets(said.decode(errors='replace'))}"
            if status not in RETRIED_STATUSES and status < 500:
                remedy = _REMEDIES.get(
                    status, "Compare the request's `top_k=` and longest row with the server's limits"
                )
                raise TeacherServerError(f"the teacher's server {self.url} refuses, {problem}. {remedy}.")
            delay = max(delay, min(asked_delay, self.timeout))
        raise TeacherServerError(
            f"the teacher's server {self.url} did not answer in {self.retries + 1} attempts; the last one gave "
            f"{problem}. See whether it runs and is reached from here, or pass a longer `timeout=`, more `retries=` "
            "or fewer `max_concurrent_requests=`."
        )

    def _exchange(self, content: bytes, max_bytes: int) -> tuple[int, bytes, float]:
        """One attempt: the status, what was said, and for how long the server asks to be left alone."""
        deadline = monotonic() + self.timeout
        headers = {"Content-Type": "application/json"}
        said = bytearray()
        with self._client.stream("POST", self.url, content=content, headers=headers) as response:
            announced = response.headers.get("Content-Length", "")
            size = int(announced[:19]) if announced.isdecimal() else 0
            for chunk in response.iter_raw() if size <= max_bytes else ():
                said += chunk
                if len(said) > max_bytes:
                    break
                if monotonic() > deadline:
                    raise _Slow
            if max(size, len(said)) > max_bytes:
                raise TeacherServerError(
                    f"the teacher's server {self.url} answers, with status {response.status_code}, in "
                    f"{f'{size} bytes' if size > max_bytes else 'a body without end'}, and no right answer has more "
                    f"than {max_bytes}. See whether `url=` is that of a completions server."
                )
            asked_delay = response.headers.get("Retry-After", "")
            return response.status_code, bytes(said), float(asked_delay) if asked_delay.isdecimal() else 0.0

    def _without_secrets(self, text: str) -> str:
        for secret in (self._api_key, *(self._login or ())):
            text = text.replace(secret, "***") if secret else text
        return repr(text[:_NUM_SHOWN])


def _address(url: str) -> tuple[str, tuple[str, str] | None]:
    """A URL without user and password, and these two."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    is_host = host is not None and _HOST.fullmatch(host) is not None
    if parts.scheme not in ("http", "https") or not is_host or parts.query or parts.fragment:
        raise ConfigurationError(
            "`url` must be the http or https address of a server, such as 'http://localhost:8000/v1', without a query "
            f"or a fragment; this one has the scheme {parts.scheme!r} and the host {host!r}."
        )
    host = f"[{host}]" if ":" in str(host) else host
    shown = f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path}"
    login = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
    return shown, login
