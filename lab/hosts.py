"""Several hosts on one machine: network namespaces with a name, a boot id and an address of their own, on one switch. Needs root.

What runs on a host sees its own network, its own host name and boot id, and what is mounted for it. Links are cut as a cable is: nothing
is refused, and nothing arrives.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .servers import Missing, Valkey

#: What a program is started through: takes a host name, a file with a boot id, and mounts, and becomes the program.
_BECOME = """
hostname "$1" && mount --bind "$2" /proc/sys/kernel/random/boot_id && shift 2 || exit 97
while [ "$1" != -- ]; do mkdir -p "$2" && mount --bind "$1" "$2" && shift 2 || exit 97; done
shift
exec "$@"
"""
#: Nobody has it, so what is sent to it is lost.
_NOBODY = "02:00:00:00:00:01"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Host:
    """One host. It has one interface, `eth0`.

    Args:
        name: its host name.
        address: IPv4.
        space: its network namespace.
        port: where it is plugged into the switch.
        boot: a file with its boot id.
    """

    def __init__(self, name: str, address: str, space: str, port: str, boot: Path) -> None:
        self.name = name
        self.address = address
        self._space = space
        self._port = port
        self._boot = boot

    def runs(self, command: Sequence[str], mounts: Mapping[Path, Path] | None = None) -> list[str]:
        """The command that runs a command here.

        Args:
            command: the program, and its arguments.
            mounts: directories of this machine, and where each is mounted for this program; made if it is missing.
        """
        pairs = [str(path) for mount in (mounts or {}).items() for path in mount]
        become = ["unshare", "--uts", "--", "sh", "-c", _BECOME, "become", self.name, str(self._boot), *pairs, "--"]
        return ["ip", "netns", "exec", self._space, *become, *command]

    def limit_unsent_bytes(self) -> None:
        """Let the kernel take no more than 256 KiB from a program that sends before they have arrived, whatever it thinks of the line."""
        limits = "echo 4096 65536 262144 > /proc/sys/net/ipv4/tcp_wmem"
        _ip("netns", "exec", self._space, "sh", "-c", limits)

    def unplug(self) -> None:
        """Pull the cable."""
        _ip("link", "set", self._port, "down")

    def plug_in(self) -> None:
        """Put it back."""
        _ip("link", "set", self._port, "up")

    def lose(self, other: Host) -> None:
        """Have everything lost that is sent from here to another host."""
        _ip("-n", self._space, "neigh", "replace", other.address, "lladdr", _NOBODY, "dev", "eth0", "nud", "permanent")

    def find(self, other: Host) -> None:
        """End that."""
        _ip("-n", self._space, "neigh", "del", other.address, "dev", "eth0")


class Switch:
    """A network of hosts, for the length of a with-block. This process, and what it starts as usual, is on it too, at `address`.

    Raises:
        Missing: this machine or user may not make one.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tag = uuid.uuid4().hex[:6]
        self._bridge = f"as{self._tag}"
        self._net = f"10.{64 + int(self._tag[:2], 16) % 128}.{int(self._tag[2:4], 16)}"
        self.address = f"{self._net}.1"
        self._spaces: list[str] = []

    def __enter__(self) -> Switch:
        if os.geteuid() or not (shutil.which("ip") and shutil.which("unshare")):
            raise Missing("root, iproute2 and util-linux, for network namespaces")
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("addr", "add", f"{self.address}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
        except subprocess.CalledProcessError as error:
            self.__exit__()
            raise Missing(f"network namespaces: {error.stderr}") from error
        return self

    def __exit__(self, *_: object) -> None:
        for space in self._spaces:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", space)
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "del", self._bridge)

    def host(self, name: str) -> Host:
        """Plug one in.

        Raises:
            Missing: there are no network namespaces here.
        """
        try:
            return self._plugged_in(name)
        except subprocess.CalledProcessError as error:
            raise Missing(f"network namespaces: {error.stderr}") from error

    def _plugged_in(self, name: str) -> Host:
        number = len(self._spaces) + 2
        space, port = f"{self._bridge}-{name}", f"as{self._tag}p{number}"
        address = f"{self._net}.{number}"
        boot = self._directory / f"boot-id-{name}"
        boot.write_text(f"{uuid.uuid4()}\n")
        _ip("netns", "add", space)
        self._spaces.append(space)
        _ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", port, "master", self._bridge, "up")
        _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        for interface in ("lo", "eth0"):
            _ip("-n", space, "link", "set", interface, "up")
        return Host(name, address, space, port, boot)


class ValkeyOn(Valkey):
    """A Valkey server on a host of its own."""

    def __init__(self, directory: Path, host: Host) -> None:
        super().__init__(directory)
        self._host = host
        self.url = f"redis://{host.address}:{self.port}/0"

    def command(self) -> list[str]:
        options = [self._binary, "--port", str(self.port), "--dir", str(self.directory), "--appendonly", "yes", "--save", ""]
        return self._host.runs([*options, "--protected-mode", "no"])


@contextlib.contextmanager
def far_away(host: Host, port: int, to: str, seconds: float) -> Iterator[str]:
    """A relay on a host, through which everything takes so much longer in each direction. Gives its address, `host:port`.

    Args:
        host: where it runs.
        port: on which it listens there.
        to: `host:port` to which it forwards.
        seconds: in each direction.
    """
    there, _, port_there = to.rpartition(":")
    relay = [sys.executable, str(Path(__file__).with_name("relay.py")), str(port), there, port_there, str(seconds)]
    process = subprocess.Popen(host.runs(relay), stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield f"{host.address}:{port}"
    finally:
        process.terminate()
        process.wait()
