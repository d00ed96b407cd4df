"""Makes redis-py and kombu check the broker's certificate in the same way.

Their defaults differ, also between their versions: redis-py compares the host name only since version 6. kombu accepts any certificate if
the URL has no TLS options; if the URL has some, kombu ignores `broker_use_ssl`.
"""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

from ..errors import ConfigurationError

#: Options of a rediss:// URL: whether the certificate must come from a trusted authority, and whether it must be valid for the host.
_AUTHORITY, _HOST = "ssl_cert_reqs", "ssl_check_hostname"
_AUTHORITY_VALUES = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}
_HOST_VALUES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def certificate_checks(url: str) -> dict[str, Any]:
    """The options for the checks: those in the URL, otherwise both checks. Empty for a URL without TLS, or for a malformed one.

    Raises:
        ConfigurationError: the URL has an unknown value.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # the client refuses it
        return {}
    if parts.scheme != "rediss":
        return {}
    query = parse_qs(parts.query)
    authority = _value(_AUTHORITY_VALUES, _AUTHORITY, query.get(_AUTHORITY, ["required"])[0].removeprefix("CERT_"))
    host = _value(_HOST_VALUES, _HOST, query.get(_HOST, ["true"])[0])
    # A certificate of any authority proves no name; OpenSSL refuses that combination.
    return {_AUTHORITY: authority, _HOST: host and authority != ssl.CERT_NONE}


def with_certificate_checks(url: str) -> str:
    """The URL with all options for the checks; a URL without TLS is returned unchanged.

    Raises:
        ConfigurationError: the URL has an unknown value.
    """
    checks = certificate_checks(url)
    if not checks:
        return url
    parts = urlsplit(url)
    authority = next(word for word, value in _AUTHORITY_VALUES.items() if value == checks[_AUTHORITY])
    own = [f"{_AUTHORITY}={authority}", f"{_HOST}={str(checks[_HOST]).lower()}"]
    others = [pair for pair in parts.query.split("&") if pair and unquote_plus(pair.partition("=")[0]) not in checks]
    return parts._replace(query="&".join([*own, *others])).geturl()


def _value(values: dict[str, Any], name: str, word: str) -> Any:
    try:
        return values[word.lower()]
    except KeyError:
        raise ConfigurationError(f"the broker's URL: {name} cannot be {word!r}", f"write one of {', '.join(values)}") from None
