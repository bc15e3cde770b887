"""The addresses that may be reached on behalf of users: public ones only.

The list is explicit because `ipaddress.is_global` calls some metadata services and tunnels global, and changes with
patch releases of Python.
"""

import ipaddress
from collections.abc import Iterable

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_PUBLIC_PORTS = (80, 443)

# IANA special-purpose registry, multicast, reserved, and the metadata services that lie in public space.
_DENIED_V4 = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared address space; 100.100.100.200 is a metadata service
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's wire server
        "169.254.0.0/16",  # link-local; 169.254.169.254 is the metadata service
        "172.16.0.0/12",
        "192.0.0.0/24",  # 192.0.0.192 is Oracle's metadata service
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
]
# Everything outside 2000::/3 is refused: loopback, mapped, NAT64, unique local, link-local, site-local, multicast.
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_DENIED_V6 = [
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # IETF assignments, Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4 carries any IPv4 address
        "3fff::/20",
    )
]


class OutboundPolicy:
    """Which addresses may be reached: public ones on ports 80 and 443, and the networks that are listed, on any."""

    def __init__(self, allowed: Iterable[IpNetwork] = ()) -> None:
        self.allowed = tuple(allowed)

    def permits(self, address: str, port: int) -> bool:
        """Whether a connection to this address and port may be made."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return self._is_allowed(ip) or (_is_public(ip) and port in _PUBLIC_PORTS)

    def _is_allowed(self, ip: IpAddress) -> bool:
        return any(ip in network for network in self.allowed)


def _is_public(ip: IpAddress) -> bool:
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _DENIED_V4)
    return ip in _UNICAST_V6 and not any(ip in network for network in _DENIED_V6)
