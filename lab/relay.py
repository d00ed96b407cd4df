"""Forwards what comes in on one port: python relay.py PORT HOST PORT SECONDS [CERTIFICATE].

As if there were a long way in between: what is sent arrives in its order so many seconds later, however much is on its way. That is
latency, and no limit of the speed. With a certificate it speaks TLS to who comes in.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """One direction, until it ends."""
    loop = asyncio.get_running_loop()
    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(10_000)

    async def arrive() -> None:
        while True:
            when, data = await on_the_way.get()
            await asyncio.sleep(max(when - loop.time(), 0.0))
            if not data:
                return
            writer.write(data)
            await writer.drain()

    arriving = asyncio.create_task(arrive())
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            await on_the_way.put((loop.time() + seconds, data))
    await on_the_way.put((loop.time() + seconds, b""))
    with contextlib.suppress(OSError):
        await arriving
    writer.close()


async def relay(port: int, host: str, to: int, seconds: float, certificate: str | None) -> None:
    """Until the program ends."""
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(host, to)
        except OSError:
            writer.close()
            return
        await asyncio.gather(carry(reader, back, seconds), carry(there, writer, seconds))

    async with await asyncio.start_server(serve, None, port, ssl=context) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(relay(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5] if len(sys.argv) > 5 else None))
