"""Access tokens: one thread obtains one, and the others wait for it, or use the old one while it is valid."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from autosync.actors._token_cache import Token, TokenCache, token_of
from lab.servers import wait_until


class Service:
    """Gives tokens when it may: their names are numbers."""

    def __init__(self, lasts: float) -> None:
        self.lasts = lasts
        self.requests = 0
        self.may = threading.Event()
        self.may.set()
        self.error: Exception | None = None

    def __call__(self) -> Token:
        self.requests += 1
        assert self.may.wait(30)
        if self.error is not None:
            raise self.error
        return Token(str(self.requests), time.time() + self.lasts)


def test_a_token_is_used_until_shortly_before_it_expires() -> None:
    service = Service(3600)
    cache = TokenCache(service)

    assert [cache.token() for _ in range(5)] == ["1"] * 5

    service = Service(100)
    cache = TokenCache(service)
    assert [cache.token() for _ in range(3)] == ["1", "2", "3"]


def test_many_threads_that_need_the_first_token_obtain_one_together() -> None:
    service = Service(3600)
    service.may.clear()
    cache = TokenCache(service)
    with ThreadPoolExecutor(16) as pool:
        tokens = [pool.submit(cache.token) for _ in range(16)]
        wait_until(lambda: service.requests, 30, "a thread to ask")
        service.may.set()
        assert {token.result() for token in tokens} == {"1"}

    assert service.requests == 1


def test_while_one_thread_replaces_a_token_the_others_use_it() -> None:
    service = Service(100)
    cache = TokenCache(service)
    assert cache.token() == "1"
    service.may.clear()
    with ThreadPoolExecutor(1) as pool:
        replacing = pool.submit(cache.token)
        wait_until(lambda: service.requests == 2, 30, "the thread to ask")
        assert cache.token() == "1"
        service.may.set()
        assert replacing.result() == "2"


def test_a_token_that_cannot_be_replaced_is_used_while_it_is_valid() -> None:
    service = Service(100)
    cache = TokenCache(service)
    cache.token()
    service.error = OSError("away")

    assert cache.token() == "1"


class CountedLock:
    """A lock that counts the threads that have come to it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0

    def acquire(self, blocking: bool = True) -> bool:
        self.count += 1  # by threads that hold the interpreter's lock
        return self.lock.acquire(blocking)

    def release(self) -> None:
        self.lock.release()


def test_a_caller_that_has_waited_in_vain_sends_no_second_request() -> None:
    service = Service(3600)
    service.may.clear()
    service.error = OSError("away")
    cache = TokenCache(service)
    cache._lock = lock = CountedLock()  # type: ignore[assignment]

    with ThreadPoolExecutor(8) as pool:
        tokens = [pool.submit(cache.token) for _ in range(8)]
        wait_until(lambda: lock.count == 8, 30, "all of them to wait")
        service.may.set()
        for one in tokens:
            with pytest.raises(OSError, match="away"):
                one.result()
    assert service.requests == 1

    service.error = None
    assert cache.token() == "2", "the next one asks anew"


@pytest.mark.parametrize("text", ["a\r\nX: y", "a\x1b", "\u00fc", "", None, 5])
def test_a_token_that_cannot_be_in_a_header_is_none(text: object) -> None:
    with pytest.raises(ValueError, match="a token that is none"):
        token_of(text, 1.0)
