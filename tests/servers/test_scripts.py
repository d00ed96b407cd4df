"""Scripts on connections of their own: what is not plain is done as redis-py does it, and no connection is left in the middle."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from autosync.ledger import connect
from autosync.ledger.scripts import Scripts
from lab.servers import Valkey, wait_until

TEXTS = {
    "echo": "return {KEYS[1], ARGV[1], ARGV[2]}",
    "count": "return redis.call('INCR', KEYS[1])",
    "wrong": "redis.call('SET', KEYS[1], 'x') return redis.call('HGET', KEYS[1], 'y')",
}


@pytest.fixture
def client(own_valkey: Valkey) -> redis.Redis:
    return connect(own_valkey.url)  # of its own, so that all connections are those of the test


@pytest.fixture
def scripts(client: redis.Redis) -> Scripts:
    return Scripts(client, TEXTS)


def ours(client: redis.Redis) -> set[str]:
    """The ids of all connections but the one that asks."""
    mine = client.client_id()
    return {one["id"] for one in client.client_list() if int(one["id"]) != mine}


def test_a_script_gets_its_keys_and_arguments(scripts: Scripts) -> None:
    for _ in range(2):  # the server does not know it at first
        assert scripts.run("echo", ["é"], ["\u20ac", b"\xff\0"]) == ["é".encode(), "\u20ac".encode(), b"\xff\0"]


def test_a_server_that_has_forgotten_its_scripts_learns_them_again(scripts: Scripts, client: redis.Redis) -> None:
    assert scripts.run("count", ["n"], []) == 1
    client.script_flush()

    assert [scripts.run("count", ["n"], []) for _ in range(2)] == [2, 3]


def test_a_script_that_fails_raises_and_its_connection_is_used_again(scripts: Scripts, client: redis.Redis) -> None:
    scripts.run("echo", ["k"], ["1", "2"])
    before = ours(client)

    for _ in range(3):
        with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
            scripts.run("wrong", ["k"], [])
        assert scripts.run("echo", ["k"], ["3", "4"]) == [b"k", b"3", b"4"]

    assert ours(client) == before


def test_a_connection_that_broke_meanwhile_costs_nothing(scripts: Scripts, client: redis.Redis) -> None:
    scripts.run("count", ["n"], [])
    killed = ours(client)
    for one in killed:
        client.client_kill_filter(_id=one)

    assert killed
    assert scripts.run("count", ["n"], []) == 2
    assert not ours(client) & killed


def test_a_late_reply_does_not_count_as_the_next_one(own_valkey: Valkey) -> None:
    client = connect(own_valkey.url)
    client.connection_pool.connection_kwargs["socket_timeout"] = 0.2
    scripts = Scripts(client, TEXTS)
    scripts.run("echo", ["k"], ["1", "2"])

    with own_valkey.frozen(), pytest.raises(redis.exceptions.TimeoutError):
        scripts.run("echo", ["k"], ["asked while", "it was frozen"])

    wait_until(lambda: own_valkey.responds(), 20, "it answers again")
    assert scripts.run("echo", ["k"], ["3", "4"]) == [b"k", b"3", b"4"]


def test_threads_do_not_share_a_connection(scripts: Scripts) -> None:
    together = threading.Barrier(8)

    def count(_: int) -> list[int]:
        together.wait(20)
        return [scripts.run("count", ["n"], []) for _ in range(100)]

    with ThreadPoolExecutor(8) as pool:
        found = sorted(number for counted in pool.map(count, range(8)) for number in counted)

    assert found == list(range(1, 801))
    assert len(scripts._idle) <= 8, "each is used again"


def test_a_server_that_is_away_is_an_error(own_valkey: Valkey) -> None:
    scripts = Scripts(connect(own_valkey.url), TEXTS)
    scripts.run("count", ["n"], [])
    assert own_valkey.process is not None
    os.kill(own_valkey.process.pid, signal.SIGKILL)
    own_valkey.process.wait()

    with pytest.raises(redis.exceptions.ConnectionError):
        scripts.run("count", ["n"], [])
