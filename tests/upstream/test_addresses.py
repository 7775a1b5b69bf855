from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from aiohttp.helpers import is_ip_address
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import FetchError, Reason
from app.upstream.addresses import (
    is_disguised,
    is_local_name,
    is_name,
    is_public,
    parse_address,
    parse_url,
    refuse_private,
)

PRIVATE = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "100.127.255.255", "127.0.0.1",
    "127.255.255.254", "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1",
    "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.7",
    "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::127.0.0.1", "64:ff9b::a00:1", "64:ff9b::169.254.169.254", "64:ff9b:1::8.8.8.8", "100::1", "2001::1",
    "2001:0:808:808::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "3fff::1",
    "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1", "192.0.1.1", "198.17.0.1",
    "223.255.255.255", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2001:200::1",
]  # fmt: skip


@pytest.mark.parametrize("text", PRIVATE)
def test_an_address_that_only_some_can_reach_is_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


def spellings(address: str) -> list[str]:
    """The ways to write a host of a URL that some client or resolver takes for `address`."""
    if ":" not in address:
        return [*_of_four(IPv4Address(address)), *_of_six(IPv6Address(f"::ffff:{address}"))]
    if "%" in address:
        return [f"[{address}]", f"[{address.replace('%', '%25')}]"]
    return [*_of_six(IPv6Address(address)), f"[{address}%25eth0]", f"[{address}%1]"]


def _of_four(address: IPv4Address) -> list[str]:
    text, number, parts = str(address), int(address), address.packed
    return [
        text,
        f"{text}.",
        f"{text}..",
        str(number),
        f"{number:#x}",
        f"0{number:o}",
        f"{parts[0]}.{number & 0xFFFFFF}",
        f"{parts[0]}.{parts[1]}.{number & 0xFFFF}",
        ".".join(f"0{part:o}" for part in parts),
        ".".join(f"{part:#x}" for part in parts),
        ".".join(f"{part:03}" for part in parts),
        ".".join(f"%{ord(char):02x}" if char != "." else char for char in text).replace("..", "."),
        text.replace(".", "%2e"),
        text.replace(".", "。"),
        text.replace(".", "．"),
        "".join(chr(ord(char) + 0xFEE0) if char != "." else char for char in text),
        f"{text}%00.cdn.example.com",
        f"{text}%2ecdn.example.com",
        f"user@{text}",
        f"cdn.example.com@{text}",
        f"cdn.example.com:443@{text}",
        f"cdn.example.com%40{text}",
        f"{text}\\@cdn.example.com",
        f"[{text}]",
        f"[v1.{text}]",
        f"[v1.a:{text}]",
    ]


def _of_six(address: IPv6Address) -> list[str]:
    groups = [f"{int.from_bytes(address.packed[at : at + 2]):x}" for at in range(0, 16, 2)]
    last = IPv4Address(address.packed[12:])
    return [
        f"[{address.compressed}]",
        f"[{address.compressed.upper()}]",
        f"[{address.exploded}]",
        f"[{':'.join(groups)}]",
        f"[{':'.join(groups[:6])}:{last}]",
        f"[v1.{address.compressed}]",
        f"[{address.compressed}].cdn.example.com",
        f"user@[{address.compressed}]",
        address.compressed.replace(":", "%3a"),
    ]


def is_refused(host: str, *, proxied: bool = False) -> bool:
    try:
        refuse_private(parse_url(f"https://{host}/x"), is_public, proxied=proxied)
    except FetchError as error:
        assert len(str(error)) < 200
        return True
    return False


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize("text", PRIVATE)
def test_an_address_that_only_some_can_reach_is_refused_in_each_spelling(text: str, proxied: bool) -> None:
    assert [host for host in spellings(text) if not is_refused(host, proxied=proxied)] == []


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_host_is_taken_as_it_is_written(text: str) -> None:
    assert not is_refused(f"[{text}]" if ":" in text else text)
    assert ":" not in text or is_refused(f"[{text}%25eth0]")


@pytest.mark.parametrize(
    "host",
    ["[]@", "[v1.a:.host]",
     "[vF.localhost:]", "[:]", "[v1.:]", "[v9.a:b]", "[::١]", "loc%61lhost", "a%2eb.test", "a%00b.test",
     "exa mple.test", "a..b.test", ".b.test", "*.test", "a;b.test", "$a.test", "(a).test", "x" * 64 + ".test",
     "a." * 127 + "test", "x" * 8000, "[v1." + "a:" * 3000 + "]"],
)  # fmt: skip
def test_a_host_that_is_neither_an_address_nor_a_name_is_refused(host: str) -> None:
    assert is_refused(host)
    assert not is_name(host.strip("[]"))


@pytest.mark.parametrize(
    "host", ["example.com", "EXAMPLE.com.", "a_b.example.com", "-a.example.com", "xn--fa-hia.de", "faß.de", "1e1.net"]
)
def test_names_that_resolvers_know_are_taken(host: str) -> None:
    assert not is_refused(host, proxied=True)


@given(
    st.text("0123456789abcfvx.:%[]@/\\?#-_ 。①\u0660\u00ad", max_size=24)
    | st.text(max_size=12)
    | st.sampled_from(PRIVATE + PUBLIC).flatmap(lambda text: st.sampled_from(spellings(text)))
)
@settings(max_examples=300)
def test_a_host_that_passes_is_a_public_address_or_goes_to_the_resolver(host: str) -> None:
    try:
        url = parse_url(f"https://{host}/x")
        refuse_private(url, is_public, proxied=False)
    except FetchError:
        return
    sent = url.raw_host or ""
    if is_ip_address(sent):  # then aiohttp connects to it without a word to the resolver that checks
        assert is_public(ip_address(sent))
    else:
        assert is_name(sent)


@pytest.mark.parametrize("text", PUBLIC)
def test_an_address_that_all_can_reach_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_nothing_is_public_that_python_itself_knows_as_private(address: object) -> None:
    found = ip_address(str(address))
    translated = found.version == 6 and found in __import__("ipaddress").IPv6Network("64:ff9b::/96")
    if is_public(found) and not translated and getattr(found, "ipv4_mapped", None) is None:
        assert found.is_global
        assert not found.is_multicast


@pytest.mark.parametrize(
    "host",
    ["2130706433", "127.1", "127.0.1", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "0X7F.1", "017700000001", "127.0.0.1.",
     "1.2.3.4.5", "256.1.1.1", "127.0.0.01", "0", "0x", "foo.0x7f", "127.0.0.1.."],
)  # fmt: skip
def test_an_address_written_in_another_way_is_a_disguise(host: str) -> None:
    assert is_disguised(host)
    assert parse_address(host) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "8.8.8.8", "::1", "example.com", "1e100.net", "a.0xg", "3m.com", "x1"])
def test_names_and_plain_addresses_are_none(host: str) -> None:
    assert not is_disguised(host)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "printer", "metadata.google.internal"])
def test_names_of_some_network_are_local(host: str) -> None:
    assert is_local_name(host)


@pytest.mark.parametrize("host", ["example.com", "internal.example.com", "localhost.example.com", "8.8.8.8"])
def test_names_of_everybodys_network_are_not(host: str) -> None:
    assert not is_local_name(host)


@pytest.mark.parametrize(
    "text",
    ["", "x", "/v1/x", "ftp://h/x", "file:///etc/passwd", "data:image/png;base64,AAAA", "javascript:1", "https://",
     "https:///x", "https://h:0/", "https://h:99999/", "https://h:x/", "https://[::1", "https://[zz]/",
     "https://h\\@evil.test/", "https://h/\x00", "https://u@h/", "https://u:p@h/", "https://:p@h/",
     "https://h/" + "x" * 9000, "gopher://h/", "unix:///var/run/docker.sock"],
)  # fmt: skip
def test_a_text_that_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(FetchError) as refused:
        parse_url(text)
    assert refused.value.reason is Reason.URL
    assert "p@h" not in str(refused.value)


def test_a_signed_address_stays_as_it_is_and_an_unsigned_one_is_spelt_out() -> None:
    signed = "https://h.test/a%2Fb/c%20d?X-Sig=%41%2b+/=&x"
    assert str(parse_url(signed)) == signed
    assert parse_url(" https://h.test/bild ü.png\n").raw_path == "/bild%20%C3%BC.png"
    assert parse_url("https://①②⑦.0.0.1/").host == "127.0.0.1"
    assert parse_url("HTTPS://H.TEST/").scheme == "https"


def test_a_part_of_an_address_lies_at_its_base() -> None:
    assert str(parse_url("/v1/images/1", "http://10.0.0.1:8000/v1")) == "http://10.0.0.1:8000/v1/images/1"
    assert str(parse_url("//other.test/x", "http://10.0.0.1:8000/v1")) == "http://other.test/x"
