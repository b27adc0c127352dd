"""Messages over the limit whose request ID is none: nobody can be told, and the session lives on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.raw import CALL, RESULT, YIELD
from support.stage import Stage

LIMIT = 4096
BIG = "x" * 5000


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(tmp_path_factory.mktemp("refused")).add_stub(stub={"takes": LIMIT})
    stage.add_front("rs", "rawsocket")
    stage.start()
    yield stage
    stage.close()


@pytest.mark.parametrize("request_id", [-1, 0, 2**63, 2**64, 2**70, 1.5, "one", None])
@pytest.mark.parametrize("serializer", ["json", "cbor", "msgpack"])
@pytest.mark.parametrize("kind", [CALL, YIELD])
def test_request_ids_that_are_none(kind: int, serializer: str, request_id: Any, stage: Stage) -> None:
    if serializer == "msgpack" and request_id in (2**64, 2**70):
        pytest.skip("MessagePack has no such integer")
    client, router = stage.session("rs", serializer)
    options = {"progress": True}
    message = [CALL, request_id, options, "com.x", [BIG]] if kind == CALL else [YIELD, request_id, options, [BIG]]
    client.send(message)
    client.send([CALL, 2, {}, "com.small"])
    while True:
        got = router.recv()
        if got[:2] == [CALL, 2]:
            break
    router.send([RESULT, 2, {}])
    while client.recv()[:2] != [RESULT, 2]:
        pass
    client.close()
    router.close()
