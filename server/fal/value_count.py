"""How many values a JSON body may hold. Only `image_url` may be large; its text needs few of JSON's own signs.

A body of 30 MB made of empty lists takes seconds and nearly a gigabyte to parse, and the parser lets no other thread
run meanwhile. So the signs are counted first, in a few milliseconds, wherever they stand.
"""

from typing import Final

from server.errors import BodyTooLarge

_SIGNS: Final = (b"[", b"{", b",", b":")  # each value but the first follows one of them
_MOST: Final = 100_000  # an input has a dozen fields; prompts and URLs add a few thousand commas at most


def refuse_many_values(body: bytes | bytearray) -> None:
    """Refuse what would take long to parse.

    Raises:
        BodyTooLarge: the body holds too many values.
    """
    if sum(body.count(sign) for sign in _SIGNS) > _MOST:
        raise BodyTooLarge("The body holds too many values: only image_url may be large")
