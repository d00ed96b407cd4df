"""Proxies that the environment names."""

from __future__ import annotations

#: What the status 407 of a proxy means (RFC 9110, 15.5.8), and what to do about it.
CREDENTIALS_WANTED = "the proxy wants another user or password"
CURE = "write HTTP_PROXY and HTTPS_PROXY as http://USER:PASSWORD@HOST:PORT"


def with_scheme(proxy: str) -> str:
    """The URL of a proxy. Without a scheme it is http://, as in botocore and curl. (requests takes the user for the scheme.)"""
    return proxy if "://" in proxy or not proxy else f"http://{proxy.removeprefix('//')}"
