"""The guard of addresses."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import AddressRefusedError, NetworkError
from providers.addresses import check_url, is_allowed, resolve

NEVER = ["0.0.0.0", "169.254.169.254", "192.0.0.192", "224.0.0.1", "240.0.0.1", "255.255.255.255", "64:ff9b::a00:1",
         "2002:7f00:1::", "::", "::7f00:1", "fe80::1", "fec0::1", "ff02::1", "2001:db8::1", "2001::1", "198.18.0.1",
         "::ffff:169.254.169.254", "64:ff9b:1::1"]
PRIVATE = ["127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.5.4", "192.168.1.1", "100.64.0.1", "::1", "fd00::1", "::ffff:127.0.0.1",
           "::ffff:10.0.0.1"]


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_never_allowed(address):
    """Metadata services, multicast, tunnels and reserved space stay closed even in one's own network."""
    assert not is_allowed(address, allow_private=False)
    assert not is_allowed(address, allow_private=True)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_need_the_setting(address):
    """Loopback and private addresses open with allow_private alone."""
    assert not is_allowed(address, allow_private=False)
    assert is_allowed(address, allow_private=True)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses_are_allowed(address):
    """Ordinary addresses of the internet pass."""
    assert is_allowed(address, allow_private=False)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_nothing_that_python_calls_local_is_allowed(ip):
    """Whatever the standard library knows as private, loopback, link-local, multicast or reserved is refused."""
    local = ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified
    if local and ipaddress.ip_address(ip) is not None:
        assert not is_allowed(str(ip), allow_private=False)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "::1", "localhost."])
def test_every_spelling_of_loopback_is_refused(host):
    """Decimal, octal, hex and short spellings end at the same guard; the message tells nothing of ports."""
    messages = []
    for port in (1, 80):
        with pytest.raises((AddressRefusedError, NetworkError)) as caught:
            resolve(host, port, allow_private=False)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_one_bad_address_among_good_ones_refuses_the_host(monkeypatch):
    """A resolver that mixes a public and a loopback address does not get us to the loopback one."""

    def mixed(*_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("1.1.1.1", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", mixed)
    with pytest.raises(AddressRefusedError):
        resolve("mixed.example", 80, allow_private=False)
    assert resolve("mixed.example", 80, allow_private=True) == ["1.1.1.1", "127.0.0.1"]


def test_what_does_not_resolve_is_a_network_error():
    """A name without an address is out of reach, not forbidden."""
    with pytest.raises(NetworkError, match="resolve"):
        resolve("no-such-host.invalid", 80, allow_private=False)


@pytest.mark.parametrize("url", [
    "file:///etc/passwd", "gopher://host/", "ftp://host", "https://good@evil.example", "https://user:pw@evil.example/", "//host",
    "https://", "https://ho st/", "https://ex\u0430mple.com", "https://a..b", "https://host:0", "https://host:99999", "https://host/?x=1",
    "https://host/#x", "https://[::zz]/", "https://[", "", "javascript:alert(1)", "https://-bad-.example",
])
def test_strange_urls_are_refused(url):
    """Other schemes, user parts, queries, look-alike letters and malformed hosts never reach the resolver."""
    with pytest.raises(AddressRefusedError) as caught:
        check_url(url)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(("url", "clean"), [
    ("https://mt5.mtapi.io", "https://mt5.mtapi.io"), ("http://127.0.0.1:4280/mt5/", "http://127.0.0.1:4280/mt5"),
    ("https://[2606:4700::1111]:8443/x", "https://[2606:4700::1111]:8443/x"), ("https://host.example.:443", "https://host.example"),
])
def test_good_urls_come_out_clean(url, clean):
    """Paths, ports and IPv6 hosts are kept; the default port and slashes at the end go."""
    assert check_url(url).url == clean
