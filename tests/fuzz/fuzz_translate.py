"""Fuzzer of the translation between serializers. See README.md for how to run it.

Invariant: whatever octets are translated, the result is one well-formed value, autobahn reads the same value before and
after, and translating it there and back gives the same octets again; all others are refused for a reason that is known.

An input is one octet that selects the serializer (1 JSON, 2 MessagePack, 3 CBOR, others by their remainder) and the
octets of a value.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.fuzz_gate import CORPUS as GATE_CORPUS
from fuzz.fuzz_gate import fuzz, load
from support.translation import PAIRS, check_direction

CORPUS = Path(__file__).resolve().parent / "corpus" / "translate"


def run_one(data: bytes) -> str:
    """Put one input through the translation in both directions; what became of it, in words.

    :raise AssertionError: the invariant does not hold.
    """
    if not data:
        return ""
    serializer = 1 + (data[0] - 1) % 3
    first, second = (check_direction(*pair, data[1:]) for pair in PAIRS if pair[0] == serializer)
    return f"{serializer}: {first}" if first == second else f"{serializer}: {first} / {second}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Fuzz the translation between serializers.")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options, rest = parser.parse_known_args()
    inputs = load([CORPUS, GATE_CORPUS, *map(Path, rest)])
    outcomes = fuzz(inputs, options.seed, seconds=options.seconds, run=run_one)
    print(f"seed {options.seed}, {sum(outcomes.values())} executions, no counterexample")
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:10} {outcome}")


if __name__ == "__main__":
    main()
