"""Ports for servers of tests: no two processes draw the same one."""

from __future__ import annotations

import socket
import subprocess
import sys

from lab import ROOT
from lab.ports import TWIN, free_port

#: The ports that Linux gives to outgoing connections if nobody has changed that (ip(7), ip_local_port_range).
EPHEMERAL = range(32_768, 61_000)
DRAWS = "import sys; from lab.ports import free_port; print(*(free_port() for _ in range(120)), flush=True); sys.stdin.read()"


def test_processes_side_by_side_draw_different_ports() -> None:
    command = [sys.executable, "-c", DRAWS]
    others = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        drawn = [free_port() for _ in range(20)]
        for other in others:
            assert other.stdout is not None
            drawn += map(int, other.stdout.readline().split())
    finally:
        for other in others:
            other.communicate()

    assert len(drawn) == 20 + 3 * 120
    assert len(set(drawn)) == len(drawn)
    assert not {port + twin for port in drawn for twin in (0, TWIN)} & set(EPHEMERAL)


FORKS = r"""
import os
from lab.ports import free_port
free_port()
child = os.fork()
os.write(1, b"%d\n" % free_port())
if child:
    os.waitpid(child, 0)
"""


def test_a_fork_draws_ports_of_its_own() -> None:
    drawn = subprocess.check_output([sys.executable, "-c", FORKS], cwd=ROOT, text=True, timeout=60).split()

    assert len(drawn) == len(set(drawn)) == 2


def test_a_port_on_which_somebody_listens_is_passed_over() -> None:
    """The next two ports of this process's block are taken: the first itself, the second by its twin."""
    before = next(port for port in iter(free_port, None) if port % 10 < 5)  # so the next three are of the same block
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", before + 1))
        one.listen()
        other.bind(("127.0.0.1", before + 2 + TWIN))
        other.listen()
        assert free_port() == before + 3


MORE_THAN_THERE_ARE_BLOCKS = """
import os, signal
from lab.ports import free_port
for _ in range(250):
    child = os.fork()
    if not child:
        free_port()
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
"""


def test_ports_of_a_process_that_ended_can_be_drawn_again() -> None:
    subprocess.run([sys.executable, "-c", MORE_THAN_THERE_ARE_BLOCKS], cwd=ROOT, check=True, timeout=60)
