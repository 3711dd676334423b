"""Requests to a server that may go away and come back: asked again while that can help, several at once."""

import http.client
import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, TypeVar
from urllib.parse import urlsplit

from isara_pl.errors import InputError, first_line

T = TypeVar("T")
AGAIN = (408, 409, 425, 429)  # what may be answered differently later, as may 500 and above
FIRST_WAIT, LONGEST_WAIT = 0.2, 5.0  # seconds between two tries


class RefusalError(InputError):
    """An answer of a server that asking again would not change.

    Attributes:
        status: The HTTP status.
        message: What the server says.
    """

    def __init__(self, url: str, path: str, status: int, message: str) -> None:
        super().__init__(f"model.generator: {url}{path} answers {status}: {message}")
        self.status = status
        self.message = message


class _AbandonedError(Exception):
    """Others of the same batch have failed, so an answer is of no use any more."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves redirects as the answers that they are: they may lead to an address that nobody named."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Client:
    """Asks one server, and no other address: neither proxies of the environment nor redirects are followed.

    Args:
        url: Its address, such as http://127.0.0.1:8000.
        timeout: Seconds after which a try counts as late.
        patience: Seconds for which a server may answer nothing but failures, or nothing at all.
        key: What it is shown as a bearer token; None shows nothing.
    """

    def __init__(self, url: str, timeout: float, patience: float, key: str | None = None) -> None:
        self.url = url
        self.timeout = timeout
        self.patience = patience
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())
        self._answered = -float("inf")  # when the server last answered anything as it should
        self._jitter = random.Random()  # decides nothing but when to ask again

    def ask(
        self, method: str, path: str, body: Any = None, final: str | None = None, stop: threading.Event | None = None
    ) -> Any:
        """Give what the server answers: JSON where it is that, else text.

        Args:
            method: GET or POST.
            path: Behind the address.
            body: Sent as JSON.
            final: What a message of a status from 500 on holds that asking again would not change.
            stop: Once set, nothing is asked again.

        Raises:
            RefusalError: If it refuses.
            InputError: If it is away for longer than `patience`.
        """
        since, wait, began = None, FIRST_WAIT, time.monotonic()
        while True:
            try:
                answer = self._once(method, path, body)
                self._answered = time.monotonic()
                return answer
            except RefusalError as refusal:
                passing = refusal.status >= 500 and (final is None or final not in refusal.message)
                if not passing and refusal.status not in AGAIN:
                    self._answered = time.monotonic()
                    raise
                failed, why = time.monotonic(), f"{refusal.status} {refusal.message}"
            except (OSError, http.client.HTTPException, ValueError) as error:  # refused, reset, late, cut off
                reason = getattr(error, "reason", error)
                # a server that says nothing has been away since it was asked
                failed = began if isinstance(reason, TimeoutError) else time.monotonic()
                why = first_line(reason) if isinstance(reason, Exception) else str(reason)
            since = failed if since is None else since
            if stop is not None and stop.is_set():
                raise _AbandonedError
            if time.monotonic() - max(since, self._answered) >= self.patience:
                raise InputError(
                    f"model.generator: {self.url} has not answered for {self.patience:g} s ({why}). Start it, or name "
                    "where it is now with --model.generator.urls, and go on with --ckpt_path last"
                ) from None
            time.sleep(wait * self._jitter.uniform(0.5, 1.5))
            wait, began = min(2 * wait, LONGEST_WAIT), time.monotonic()

    def _once(self, method: str, path: str, body: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers, method=method)
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                text = response.read().decode()
                return json.loads(text) if "json" in response.headers.get("Content-Type", "") else text
        except urllib.error.HTTPError as error:
            raise RefusalError(self.url, path, error.code, _message(error)) from None


def _message(error: urllib.error.HTTPError) -> str:
    """Give what the server says about an error: vLLM's own sentence, or the beginning of whatever stands there."""
    try:
        text = error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return str(error.reason)
    try:
        return str(json.loads(text)["error"]["message"])[:500]
    except (ValueError, TypeError, KeyError):
        return " ".join(text.split())[:300] or str(error.reason)


def checked_url(url: str) -> str:
    """Give an address without an ending that others leave out. Raises InputError if it is none of a server."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise InputError(f"model.generator.urls: {url!r} is no address of a server. Allowed: http://HOST:PORT")
    return url.rstrip("/").removesuffix("/v1")


def each(call: Callable[[int, threading.Event], T], count: int, at_once: int) -> Iterator[tuple[int, T]]:
    """Call something with 0 to count - 1, several at once, and give each number with its result as it comes.

    The first error ends it. What is under way then, or at Ctrl-C, is abandoned: neither waits for it, nor does the end
    of the process. `call` gets an event that is set from then on.
    """
    numbers, found, stop = (
        iter(range(count)),
        SimpleQueue[tuple[int, T | None, BaseException | None]](),
        threading.Event(),
    )
    next_number = threading.Lock()

    def work() -> None:
        while not stop.is_set():
            with next_number:
                number = next(numbers, None)
            if number is None:
                return
            try:
                found.put((number, call(number, stop), None))
            except BaseException as error:
                found.put((number, None, error))
                return

    try:
        for _ in range(min(at_once, count)):
            threading.Thread(target=work, name="generator", daemon=True).start()
        for _ in range(count):
            number, result, error = found.get()
            if error is not None:
                raise error
            yield number, result  # type: ignore[misc]  # a result, where there is no error
    finally:
        stop.set()
