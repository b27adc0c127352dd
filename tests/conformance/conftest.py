"""Fixtures of the conformance tests."""

from __future__ import annotations

import os
import warnings

import pytest

from conformance import wstest


@pytest.fixture(scope="session")
def program() -> str:
    """Path of ``wstest``. Without it: skipped, loudly; failed where peers are required and a Python 2.7 is at hand."""
    path = wstest.find()
    if path is not None:
        return path
    if os.environ.get("WAMP_PROXY_REQUIRE_PEERS") == "1" and wstest.find_python27():
        pytest.fail("there is a Python 2.7, but no .venv-wstest: `make conformance-setup` builds it")
    text = "the Autobahn test suite was NOT RUN: no .venv-wstest (`make conformance-setup`, needs a Python 2.7)"
    warnings.warn(text, stacklevel=1)
    pytest.skip(text)
