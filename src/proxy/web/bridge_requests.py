"""What the HTTP bridge reads in a request besides its body."""

from email.message import Message
from typing import Any, Final
from urllib.parse import unquote_to_bytes

__all__ = ["Refused", "query_of", "require_utf8"]

QUERY_FIELDS_MAX: Final = 64
_CHARSETS: Final = frozenset({"", "utf-8", "utf8"})


class Refused(Exception):
    """A request that is not passed on.

    :param status: of HTTP.
    :param text: why, for the client.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def require_utf8(request: Any) -> str:
    """Check that a body is said to be UTF-8, or nothing.

    :returns: its media type, in lower case; may be empty.
    :raises Refused: it is said to be something else.
    """
    given = (request.getHeader(b"content-type") or b"").decode("latin-1")
    head = Message()
    head["content-type"] = given
    try:
        charset = str(head.get_param("charset", ""))
    except (TypeError, ValueError):  # some malformed continuations of a parameter (RFC 2231) make Python stumble
        charset = "malformed"
    if charset.strip().lower() not in _CHARSETS:
        raise Refused(400, "the request's Content-Type: expected charset UTF-8")
    return given.split(";")[0].strip().lower()


def query_of(request: Any) -> dict[str, bytes]:
    """The first value of each field in the query of a request's address. Never from its body.

    :raises Refused: there are too many, or their names are not UTF-8.
    """
    query = request.uri.partition(b"?")[2]
    parts = query.split(b"&", QUERY_FIELDS_MAX)
    if len(parts) > QUERY_FIELDS_MAX:
        raise Refused(400, f"the request's query: expected at most {QUERY_FIELDS_MAX} fields")
    fields: dict[str, bytes] = {}
    for part in parts:
        name, _, value = (unquote_to_bytes(piece) for piece in part.replace(b"+", b" ").partition(b"="))
        try:
            fields.setdefault(name.decode("utf-8"), value)
        except UnicodeDecodeError:
            raise Refused(400, "the request's query: expected names in UTF-8") from None
    return fields
