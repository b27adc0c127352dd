"""Fuzzer of the WAMP gate. See README.md for how to run it.

Invariant: whatever octets the gate lets pass as a message of type T, every decoder of that serializer either refuses
them or reads exactly one message of type T.

An input is one octet that selects the serializer (1 JSON, 2 MessagePack, 3 CBOR, 4 UBJSON, 5 FlatBuffers, others by
their remainder) and the octets of the message.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.gate import check_gate

CORPUS = Path(__file__).resolve().parent / "corpus" / "gate"
INTERESTING = (
    b'\x00\x01\x04\x06\x08\x0c\x17\x18\x19\x1f0123456789[]{},:"\\ \t\n\r+-.eE$#NZTFiUIulmLMhdDCSHB\xef\xbb\xbf'
    + bytes(range(0x80, 0x100))
)
SIZE_MAX = 4096
DRIFTED_MAX = 2000


def run_one(data: bytes) -> str:
    """Put one input through gate and decoders; what became of it, in words.

    :raise AssertionError: the invariant does not hold.
    """
    return f"{data[0] % 5}: {check_gate(1 + (data[0] - 1) % 5, data[1:])}" if data else ""


def load(folders: list[Path]) -> list[bytes]:
    """The inputs in some folders, in an order that depends on nothing but their names."""
    return [path.read_bytes() for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]


def mutate(data: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """The input after a few changes, more of them near its start, where the type is."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        at = min(dice.randrange(len(out) + 1), dice.randrange(len(out) + 1))
        octet = dice.choice(INTERESTING) if dice.random() < 0.7 else dice.randrange(256)
        match dice.randrange(8):
            case 0 | 1:
                out[at : at + 1] = bytes([octet])
            case 2:
                out[at:at] = bytes([octet])
            case 3:
                del out[at : at + dice.choice((1, 1, 2, 4, 8))]
            case 4 if at < len(out):
                out[at] ^= 1 << dice.randrange(8)
            case 5:
                out[at:at] = out[at : at + dice.randrange(1, 20)]
            case 6:
                other = dice.choice(others)
                start = dice.randrange(len(other) + 1)
                out[at : at + dice.randrange(8)] = other[start : start + dice.randrange(1, 32)]
            case 7 if at + 1 < len(out):
                out[at] = (out[at] + dice.choice((1, 255))) & 255
    return bytes(out[:SIZE_MAX])


def fuzz(
    inputs: list[bytes],
    seed: int,
    *,
    executions: int | None = None,
    seconds: float | None = None,
    run: Callable[[bytes], str] = run_one,
) -> dict[str, int]:
    """Run the inputs, then changed ones, until one of the two limits is met.

    Some of the changed inputs that pass and are read are changed further, so that they drift away from the corpus.

    :param seed: of the random numbers; the same seed and number of executions do the same.
    :param run: puts one input to the test and says what became of it.
    :return: how often each outcome was met.
    """
    dice = random.Random(seed)
    drifted: list[bytes] = []
    outcomes: dict[str, int] = {}
    until = None if seconds is None else time.monotonic() + seconds
    done = 0
    while (executions is None or done < executions) and (until is None or done % 256 or time.monotonic() < until):
        data = (
            inputs[done]
            if done < len(inputs)
            else mutate(dice.choice(drifted or inputs if dice.random() < 0.5 else inputs), inputs, dice)
        )
        try:
            outcome = run(data)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, execution {done}, input {data.hex()}: {error}") from error
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if done >= len(inputs) and outcome.endswith(("is read", "is translated")) and dice.random() < 0.1:
            drifted.append(data)
            del drifted[: max(0, len(drifted) - DRIFTED_MAX)]
        done += 1
    return outcomes


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Fuzz the WAMP gate.")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--atheris", action="store_true", help="let libFuzzer drive; what follows are its arguments")
    options, rest = parser.parse_known_args()
    if options.atheris:
        import atheris  # not a requirement of the tests

        atheris.instrument_all()
        atheris.Setup([sys.argv[0], *rest], lambda data: run_one(data) and None)
        atheris.Fuzz()
        return
    outcomes = fuzz(load([CORPUS, *map(Path, rest)]), options.seed, seconds=options.seconds)
    print(f"seed {options.seed}, {sum(outcomes.values())} executions, no counterexample")
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:10} {outcome}")


if __name__ == "__main__":
    main()
