"""Session IDs of the worker: those that clients are told (front_sid) and those that routers gave (back_sid)."""

import secrets
from collections import OrderedDict
from typing import Final, NamedTuple

from proxy.messages import ID_MAX
from proxy.plane import Plane

__all__ = ["Claim", "SessionIds"]

# Draws before giving up. That two in a row are taken would need half of all 2^53 IDs to be in use; more mean that
# the system's random numbers are none.
DRAWS_MAX: Final = 100


# Ended sessions whose IDs are still known, for clients that come again to resume them.
ENDED_MAX: Final = 4096


class SessionIds:
    """The IDs that are in use, and the routers' IDs of sessions that the proxy named.

    :param plane: the data plane, which maps the IDs of both sides to each other.
    """

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._taken: set[int] = set()
        # IDs that are in use more than once, and how often beyond that: routers do not know of each other.
        self._again: dict[int, int] = {}
        # front_sid -> back_sid, where they differ
        self._backs: dict[int, int] = {}
        self._ended: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        """Different IDs in use."""
        return len(self._taken)

    def __contains__(self, sid: int) -> bool:
        """Whether an ID is in use."""
        return sid in self._taken

    def draw(self) -> int:
        """A new front_sid, in use from now on: random in the whole range that the specification has ("IDs").

        It is neither one that another client of this worker was told nor one that a router gave to a session here.

        :raises RuntimeError: the system's random numbers repeat.
        """
        for _ in range(DRAWS_MAX):
            sid = secrets.randbelow(ID_MAX) + 1
            if sid not in self._taken:
                self._taken.add(sid)
                return sid
        raise RuntimeError("no session ID that is free was drawn")

    def add(self, back_sid: int) -> None:
        """A router gave this ID to a session."""
        if back_sid in self._taken:
            self._again[back_sid] = self._again.get(back_sid, 0) + 1
        else:
            self._taken.add(back_sid)

    def join(self, front_sid: int, back_sid: int) -> None:
        """A router gave an ID to the session that the client knows as ``front_sid``."""
        self.add(back_sid)
        if front_sid != back_sid:
            self._backs[front_sid] = back_sid

    def to_back(self, front_sid: int) -> int:
        """What its router called a session; an ID that is not known, or not any more, stands for itself."""
        return self._backs.get(front_sid) or self._ended.get(front_sid, front_sid)

    def drop(self, sid: int) -> None:
        """One session that has this ID is over. No error if there is none."""
        more = self._again.get(sid, 0)
        if not more:
            self._taken.discard(sid)
        elif more == 1:
            del self._again[sid]
        else:
            self._again[sid] = more - 1

    def release(self, realm: int, front_sid: int) -> None:
        """The session that was told ``front_sid`` is over.

        :param realm: the realm's number in the data plane; 0: no router was dialled for it.
        """
        self.drop(front_sid)
        back_sid = self._backs.pop(front_sid, 0)
        if back_sid:
            self._ended[front_sid] = back_sid
            if len(self._ended) > ENDED_MAX:
                self._ended.popitem(last=False)
        if realm:
            self._plane.release_sid(realm, front_sid)


class Claim(NamedTuple):
    """What the data plane is told of a session that a router is dialled for.

    :ivar realm: the realm's number.
    :ivar front_sid: the ID that the client will be told; 0: the router's own.
    """

    ids: SessionIds
    realm: int
    front_sid: int

    def unanswered(self) -> None:
        """A connection that was dialled for it has closed, and nobody saw a WELCOME from it.

        If the session has ended before, a WELCOME may still have come in between, and the data plane have noted it.
        """
        if self.front_sid and self.front_sid not in self.ids:
            self.ids.release(self.realm, self.front_sid)
