"""Which addresses we may connect to. A base URL comes from a person: it must not reach into the network we run in.

The guard judges the addresses a name resolves to, and the caller connects to exactly those: a resolver that answers
differently a moment later changes nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from core.errors import AddressRefusedError, NetworkError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(*texts: str) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


# Reachable only with allow_private: where a person's own bridge or sandbox runs.
PRIVATE: Final = _networks("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7")
# Never reachable: cloud metadata, multicast, documentation, and IPv6 forms that tunnel to some other IPv4 address.
NEVER: Final = _networks(
    "0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    "::/128", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "fe80::/10",
    "fec0::/10", "ff00::/8", "3fff::/20", "5f00::/16",
)
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_SCHEMES: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """What a checked URL points to; `path` has no slash at its end."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        """The URL again, without query, fragment and user part."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _SCHEMES[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"


def check_url(url: str) -> Target:
    """Return the parts of a base URL from a person, unresolved.

    Raises:
        AddressRefusedError: another scheme than http(s) or ws(s), a user part, a query, no or a strange host.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise AddressRefusedError("base URL: received a malformed address; allowed: https://HOST[:PORT][/PATH]") from None
    if parts.scheme not in _SCHEMES:
        raise AddressRefusedError(f"base URL: received scheme {parts.scheme[:20]!r}; allowed: {', '.join(_SCHEMES)}")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise AddressRefusedError("base URL: received a user part before the host; allowed: none; give credentials apart")
    if parts.query or parts.fragment:
        raise AddressRefusedError("base URL: received a query or fragment; allowed: https://HOST[:PORT][/PATH]")
    if port == 0:
        raise AddressRefusedError("base URL: received port 0; allowed: 1 to 65535")
    return Target(parts.scheme, _check_host(parts), port or _SCHEMES[parts.scheme], parts.path.rstrip("/"))


def _check_host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if "[" in parts.netloc:
        try:
            return str(ipaddress.IPv6Address(host.split("%", maxsplit=1)[0]))
        except ValueError:
            raise AddressRefusedError("base URL: received a malformed IPv6 host; allowed: [ADDRESS]") from None
    # A non-ASCII name may look like another one; its punycode form cannot.
    if not _HOST.fullmatch(host) or ".." in host:
        raise AddressRefusedError(
            f"base URL: received host {host[:80]!r}; allowed: letters, digits, - and .; write other names in punycode")
    return host.rstrip(".")


def resolve(host: str, port: int, allow_private: bool) -> list[str]:
    """Return the addresses of `host` that we may connect to, in the resolver's order. Blocks: call it in a thread.

    Args:
        host: a name or a literal address in any spelling the system understands (decimal and octal ones too).
        port: only handed to the resolver.
        allow_private: also loopback, private, unique-local and shared (CGNAT) addresses.

    Raises:
        AddressRefusedError: when even one of the addresses is not allowed.
        NetworkError: when the name does not resolve.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        raise NetworkError(f"host {host[:80]!r} does not resolve; check its spelling and the DNS") from None
    addresses = list(dict.fromkeys(str(entry[4][0]).split("%", maxsplit=1)[0] for entry in found))
    if not addresses or not all(is_allowed(address, allow_private=allow_private) for address in addresses):
        raise AddressRefusedError(
            f"host {host[:80]!r}: address not allowed; allowed: public addresses; "
            "set CANDLELAKE_ALLOW_PRIVATE_HOSTS=1 for one in your own network")
    return addresses


def is_allowed(address: str, *, allow_private: bool) -> bool:
    """Return whether we may connect to a literal address."""
    ip: _Address = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if _in(ip, PRIVATE):  # ::1 lies in ::/96 too, so this comes first
        return allow_private
    return not _in(ip, NEVER) and ip.is_global and not ip.is_multicast


def _in(ip: _Address, networks: tuple[_Network, ...]) -> bool:
    return any(ip.version == network.version and ip in network for network in networks)
