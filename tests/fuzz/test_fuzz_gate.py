"""A bounded run of the gate's fuzzer: every input of the corpus, then some thousands of changed ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import fuzz_gate

INPUTS = sorted(fuzz_gate.CORPUS.iterdir())


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name)
def test_the_corpus_holds_the_invariant(path: Path) -> None:
    fuzz_gate.run_one(path.read_bytes())


def test_changed_inputs_hold_the_invariant() -> None:
    outcomes = fuzz_gate.fuzz(fuzz_gate.load([fuzz_gate.CORPUS]), seed=2718, executions=40_000)
    # the run is of use only when it meets every answer of the gate for every serializer
    answers = ("AMBIGUOUS", "MALFORMED", "TRUNCATED", "TRAILING", "DEPTH", "passes, and is read")
    missed = [f"{serializer}: {answer}" for serializer in range(1, 5) for answer in answers]
    missed += [f"0: {answer}" for answer in ("MALFORMED", "TRUNCATED", "passes, and is read")]  # FlatBuffers
    assert [outcome for outcome in missed if outcome not in outcomes] == []
