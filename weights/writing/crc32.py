"""Checksums of joined bytes from checksums of their parts.

CRC-32 is linear: appending n bytes multiplies the polynomial by x^(8n) modulo the CRC's own. So one pass over the bytes
gives the checksum of every part, of the tensor they were read from and of the file they are written to. (zlib has this
as `crc32_combine`; Python's binding leaves it out.)
"""

from __future__ import annotations

_POLYNOMIAL = 0xEDB88320  # CRC-32, bits reflected: bit 31 is x^0
_ONE = 1 << 31


def combine(first: int, second: int, second_length: int) -> int:
    """CRC-32 of A + B from those of A and of B and B's length in bytes."""
    factor, power, remaining = _ONE, _X8, second_length
    while remaining:
        if remaining & 1:
            factor = _multiply(factor, power)
        power = _multiply(power, power)
        remaining >>= 1
    return _multiply(first, factor) ^ second


def _multiply(a: int, b: int) -> int:
    """Product of two polynomials modulo CRC-32's."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


_X8 = _ONE >> 8
"""x^8: one byte further."""
