"""OpenStack Swift in one process: its proxy, account, container and object server, each on a port of its own, as its own tests run them.
One copy of everything on one device. Run by lab/swift.py, as a program: eventlet changes what the standard library does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

USER, KEY = "lab:tester", "lab-key"

_SWIFT_CONF = """
[swift-hash]
swift_hash_path_prefix = lab
swift_hash_path_suffix = lab

[swift-constraints]
container_listing_limit = {page}

[storage-policy:0]
name = gold
default = yes

[storage-policy:1]
name = silver
"""

_STORAGE = """
[DEFAULT]
devices = {devices}
mount_check = false
swift_dir = {swift_dir}
workers = 0
bind_ip = 127.0.0.1
bind_port = {port}
disable_fallocate = true
log_level = WARNING

[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}
"""

_PROXY = """
[DEFAULT]
swift_dir = {swift_dir}
workers = 0
bind_ip = 127.0.0.1
bind_port = {port}
log_level = WARNING
expose_info = true

[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck memory listing_formats {bulk} tempauth {slo} proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true

[filter:memory]
paste.filter_factory = lab.swiftd:in_memory

[filter:tempauth]
use = egg:swift#tempauth
user_lab_tester = lab-key .admin
user_lab_reader = lab-key
token_life = 86400

[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
"""


#: What not every Swift has.
_OPTIONAL = ("bulk", "slo")


class _Memory:
    """A replacement for memcached, in which Swift stores tokens and facts about containers."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    def get(self, key: str, *_: object, **__: object) -> Any:
        return self._kept.get(key)

    def set(self, key: str, value: Any, *_: object, **__: object) -> None:
        self._kept[key] = value

    def incr(self, key: str, delta: int = 1, *_: object, **__: object) -> int:
        self._kept[key] = int(self._kept.get(key, 0)) + delta
        return int(self._kept[key])

    def delete(self, key: str, *_: object, **__: object) -> None:
        self._kept.pop(key, None)


def in_memory(_: Mapping[str, str], **__: str) -> Callable[[Any], Any]:
    """A filter in place of `cache` (PasteDeploy: filter_factory)."""
    memory = _Memory()

    def around(app: Any) -> Any:
        def serve(environ: dict[str, Any], start_response: Any) -> Any:
            environ["swift.cache"] = memory
            return app(environ, start_response)

        return serve

    return around


def main(directory: str, ports: Mapping[str, int], page: int, without: Sequence[str]) -> None:
    """Serve until the process ends.

    Args:
        directory: for its configuration and for what it stores.
        ports: by `proxy`, `account`, `container` and `object`.
        page: of a listing, in objects.
        without: filters to leave out.
    """
    # What is stored is thrown away; nobody needs it after a power failure.
    os.fsync = os.fdatasync = lambda fd: None
    import eventlet
    import eventlet.wsgi

    eventlet.monkey_patch()
    from swift.common import utils

    here = Path(directory)
    (here / "devices/one").mkdir(parents=True, exist_ok=True)
    (here / "swift.conf").write_text(_SWIFT_CONF.format(page=page))
    # Swift reads this variable with the path of the file when its modules are imported.
    utils.SWIFT_CONF_FILE = str(here / "swift.conf")
    from swift.common import constraints, ring, wsgi
    from swift.common.http_protocol import SwiftHttpProtocol

    utils.validate_hash_conf()
    assert page == constraints.CONTAINER_LISTING_LIMIT
    from swift.common.storage_policy import reload_storage_policies

    reload_storage_policies()
    for kind, name in (("account", "account"), ("container", "container"), ("object", "object"), ("object", "object-1")):
        builder = ring.RingBuilder(4, 1, 0)
        builder.add_dev(
            {"id": 0, "region": 1, "zone": 1, "weight": 1, "ip": "127.0.0.1", "port": ports[kind], "device": "one", "meta": "",
             "replication_ip": "127.0.0.1", "replication_port": ports[kind]}
        )  # fmt: skip
        builder.rebalance()
        builder.get_ring().save(str(here / f"{name}.ring.gz"))
    serving = []
    for kind, port in ports.items():
        filters = {name: "" if name in without else name for name in _OPTIONAL}
        text = _PROXY if kind == "proxy" else _STORAGE
        path = here / f"{kind}.conf"
        path.write_text(text.format(devices=here / "devices", swift_dir=here, kind=kind, port=port, **filters))
        app, conf, *_ = wsgi.init_request_processor(str(path), f"{kind}-server")
        how = {"protocol": SwiftHttpProtocol, "capitalize_response_headers": False, "url_length_limit": constraints.MAX_REQUEST_LINE}
        serving.append(eventlet.spawn(eventlet.wsgi.server, wsgi.get_socket(conf), app, utils.NullLogger(), **how))
    for one in serving:
        one.wait()


if __name__ == "__main__":
    directory, ports, listed, *left_out = sys.argv[1:]
    sys.path[0] = str(Path(__file__).parent.parent)  # instead of the directory of this file: modules there are called like others elsewhere
    main(directory, dict(zip(("account", "container", "object", "proxy"), map(int, ports.split(",")), strict=True)), int(listed), left_out)
