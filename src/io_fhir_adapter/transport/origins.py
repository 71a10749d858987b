"""Whom requests may go to: trusted origins, origins for downloads, and addresses that an answer may not lead to."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import httpx

from io_fhir_adapter.errors import ForeignOriginError, TransportError

__all__ = ["Lookup", "Origin", "Origins", "is_absolute", "look_up", "open_addresses", "origin_of", "parse_url"]

Origin = tuple[str, str, int]
Lookup = Callable[[str, int], Awaitable[list[str]]]

_LAST_PORT: Final = 65_535
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_NAT64: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


def origin_of(url: str | httpx.URL) -> Origin:
    """Scheme, host and port of a URL, ports spelt out.

    Parsed as the client that makes the request parses it, so that the two cannot disagree on where a URL leads.
    """
    parsed = httpx.URL(url)
    return parsed.scheme, parsed.host, parsed.port or _DEFAULT_PORTS.get(parsed.scheme, 0)


def is_absolute(link: str) -> bool:
    """Whether a link begins with a scheme; one that does not may still have a URL in its query."""
    return _SCHEME.match(link) is not None


def parse_url(link: str, base: str | httpx.URL, where: str) -> httpx.URL:
    """A link that the server gave, made absolute.

    Raises:
        TransportError: It is no URL.
    """
    try:
        # parsing a URL of many ids takes long enough to do it once only
        return _addressed(httpx.URL(link) if is_absolute(link) else httpx.URL(base).join(link))
    except (httpx.InvalidURL, ValueError) as exc:
        raise TransportError(
            "the server's link is no URL",
            where=where,
            do="report this to the server's vendor",
            number=11,
            transient=False,
        ) from exc


def _addressed(url: httpx.URL) -> httpx.URL:
    """The same where its host is one, which is decoded only here, and its port."""
    if url.host and (url.port or 0) > _LAST_PORT:
        raise ValueError
    return url


class Origins:
    """What the configuration says about whom to trust.

    Args:
        base_url: The configured server.
        trusted: Origins that links may lead to, credentials and all.
        downloads: Origins that files may be downloaded from, without credentials.
    """

    def __init__(self, base_url: str, trusted: Iterable[str], downloads: Iterable[str]) -> None:
        self._where = base_url
        self._secure = origin_of(base_url)[0] == "https"
        self._trusted = frozenset({origin_of(base_url), *map(origin_of, trusted)})
        self._downloads = frozenset(map(origin_of, downloads))

    def trusts(self, url: httpx.URL) -> bool:
        """Whether credentials may go there."""
        return origin_of(url) in self._trusted

    def named(self, url: httpx.URL) -> bool:
        """Whether the configuration names the origin, so that its address needs no look."""
        return origin_of(url) in self._trusted | self._downloads

    def check(self, url: httpx.URL, kind: str = "link") -> None:
        """Refuses an origin that credentials may not go to.

        Raises:
            ForeignOriginError: It is neither the configured one nor a trusted one.
        """
        scheme, host, port = origin = origin_of(url)
        if origin not in self._trusted:
            raise ForeignOriginError(
                f"the server's {kind} leads to another origin ({scheme}://{host}:{port})",
                where=self._where,
                do="if that is the same server, name it under trusted_origins",
                number=6,
            )

    def check_download(self, url: httpx.URL) -> None:
        """Refuses what no file is fetched from: other schemes, and plain HTTP where the server itself is encrypted.

        Raises:
            ForeignOriginError: It is refused.
        """
        scheme, host, port = origin_of(url)
        if self.named(url) or scheme == "https" or (scheme == "http" and not self._secure):
            return
        raise ForeignOriginError(
            f"the server's link leads to an unencrypted or unknown place ({scheme}://{host}:{port})",
            where=self._where,
            do="if files do lie there, name it under download_origins",
            number=6,
        )


async def look_up(host: str, port: int) -> list[str]:
    """The addresses of a host name, in the order in which to try them.

    Raises:
        OSError: There are none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def open_addresses(url: httpx.URL, lookup: Lookup, where: str) -> list[str]:
    """The public addresses behind a URL that only a server's answer names.

    Raises:
        ForeignOriginError: One of them lies inside: loopback, link-local (where clouds keep their metadata), private
            and other special networks.
        TransportError: The name has no address.
    """
    scheme, host, port = origin_of(url)
    try:
        addresses = await lookup(host, port)
    except (OSError, UnicodeError) as exc:
        raise TransportError(
            f"the server's link leads to a host without an address ({host})",
            where=where,
            do="check the name service; where only a proxy knows the host, name its origin under download_origins",
            number=19,
        ) from exc
    if not addresses or not all(map(_is_public, addresses)):
        raise ForeignOriginError(
            f"the server's link leads to an address inside a network ({scheme}://{host}:{port})",
            where=where,
            do="if that is meant, name the origin under download_origins or trusted_origins",
            number=16,
        )
    return addresses


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and any(address in network for network in _NAT64):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            address = inner
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)
