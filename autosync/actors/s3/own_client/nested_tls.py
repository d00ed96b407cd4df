"""TLS with a server inside TLS with a proxy. The ssl module has it for buffers only, and urllib3 has a socket over these."""

from __future__ import annotations

from urllib3.util.ssltransport import SSLTransport


class NestedTls(SSLTransport):
    """A connection inside another one."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """The next bytes; b"" at the end, where `SSLTransport` returns 0."""
        return super().recv(buflen, flags) or b""  # type: ignore[return-value]
