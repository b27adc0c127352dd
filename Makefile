# make run | test | lint | bench ...: `make help` lists them. Every target first sets up what it needs, once.
#
# PYTHON=python3.13   the Python to use (3.11 or newer; default: the first that fits)
# JOBS=4              test processes at a time (default 2, 0: in this one, for a debugger)
# ARGS="-k gate -x"   arguments for pytest, for bench/run.py (bench) or for wamp-proxy quickstart (run)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
# any Python 2.7, for the Autobahn test suite only; WAMP_PYTHON27 wins. Shims of pyenv that lead nowhere do not count
PYTHON27 := $(shell \
  for p in "$${WAMP_PYTHON27:-}" python2.7 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/2.7.*/bin/python2.7; do \
  "$$p" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null && { echo "$$p"; break; }; done)
NODE := $(shell command -v npm >/dev/null 2>&1 && node --version 2>/dev/null)
# one release behind what tests were written with is fine, an unknown next one is not
CROSSBAR ?= crossbar>=26.1,<27

VENV := .venv
PY := $(VENV)/bin/python
JS := tests/support/js
JOBS ?= 2
# one file stays with one process: what its tests share, a router mostly, is started once
PYTEST := $(PY) -m pytest --numprocesses=$(JOBS) --dist=loadfile
# what is worth running again with assertions and sanitizers: everything that drives the data plane
DEEP ?= $(wildcard tests/unit tests/property tests/kernel tests/integration tests/adversity tests/leaks) \
	$(addprefix --ignore=,$(wildcard $(SHALLOW)))
# The build with sanitizers has the same assertions and runs all of these; the one without runs a session's whole
# way, and what is driven without a control plane.
WAYS := $(addprefix tests/integration/test_,login.py websocket.py rawsocket.py gate.py ending.py universal.py \
	limits.py tls_front.py session_management.py oversize.py)
ASSERTED ?= $(wildcard tests/unit tests/property tests/kernel tests/adversity $(WAYS)) \
	$(addprefix --ignore=,$(wildcard $(SHALLOW)))
# of the control plane only: the same octets pass the data plane as in the others, so that once is enough
SHALLOW := $(addprefix tests/integration/test_,node.py node_channel.py node_command.py node_ending.py ctl.py \
	manhole.py management_remote.py management_socket.py process.py service_sessions.py auth_dynamic.py \
	auth_matrix.py auth_static.py authentication_docs.py cookies.py router_logins.py bench_logins.py bench_tls.py \
	browser.py crossbar_examples.py forwarded.py longpoll.py mqtt.py other_endpoints.py tls_backend.py tls_login.py \
	tls_reload.py transports_docs.py web_*.py) \
	$(addprefix tests/unit/test_,auth_*.py bench_*.py config.py cookies*.py ctl_*.py forwarded.py longpoll_*.py \
	management_*.py mqtt_*.py nodekey.py nodelog.py other_endpoints.py passthrough.py procedures.py process*.py proofs.py \
	redaction.py reloading.py router_logins.py tls_*.py upgrade.py web_*.py)
ARGS ?=

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# --- set-up ------------------------------------------------------------------------------------------------------

define WHAT_TO_INSTALL
Install these, then run make again:
  Debian, Ubuntu   apt install build-essential zlib1g-dev libssl-dev python3 python3-dev python3-venv
  Fedora, RHEL     dnf install gcc gcc-c++ make zlib-devel openssl-devel python3 python3-devel
  Alpine           apk add gcc g++ make musl-dev linux-headers zlib-dev openssl-dev bash python3 python3-dev
GCC must be 11 or newer (or Clang 14 with the C++ library of GCC 11).
Python must be 3.11 or newer; PYTHON=/path/to/python3 names another one (one from pyenv or uv has its headers).
endef
export WHAT_TO_INSTALL

define FIND_MISSING
import importlib.util, os, shutil, subprocess, sys, sysconfig
cc = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
cxx = (os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++").split()[0]
flags = os.environ.get("CFLAGS", "").split() + os.environ.get("CPPFLAGS", "").split()
flags += ["-I%s/include" % os.environ["OPENSSL_PREFIX"]] if os.environ.get("OPENSSL_PREFIX") else []
def is_header(name):
    command = [cc, *flags, "-E", "-x", "c", "-"]
    source = b"#include <%s>" % name.encode()
    return not shutil.which(cc) or not subprocess.run(command, input=source, capture_output=True).returncode
include = sysconfig.get_path("include")
missing = [text for ok, text in (
    (shutil.which(cc), "a C compiler (%s)" % cc),
    (shutil.which(cxx), "a C++ compiler (%s)" % cxx),
    (is_header("zlib.h"), "the headers of zlib (zlib.h)"),
    (is_header("openssl/ssl.h"), "the headers of OpenSSL (openssl/ssl.h)"),
    (os.path.exists(include + "/Python.h"), "the headers of Python (%s/Python.h)" % include),
    (all(map(importlib.util.find_spec, ("ensurepip", "venv"))), "the Python modules venv and ensurepip"),
) if not ok]
sys.exit("wamp-proxy: missing: " + ", ".join(missing) if missing else 0)
endef
export FIND_MISSING

.PHONY: tools
tools:
	@if [ -z "$(PYTHON)" ]; then \
	  echo "wamp-proxy: there is no Python 3.11 or newer on PATH" >&2; echo "$$WHAT_TO_INSTALL" >&2; exit 1; fi
	@"$(PYTHON)" -c "$$FIND_MISSING" || { echo "$$WHAT_TO_INSTALL" >&2; exit 1; }

# What the environment of the program and of the tests is made from; the extension is built on its own, by `build`.
INPUTS := pyproject.toml setup.py

$(VENV)/bin/python: | tools
	"$(PYTHON)" -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip

$(VENV)/.stamp-run: $(INPUTS) | tools $(VENV)/bin/python
	$(PY) -m pip install --quiet --editable '.[quickstart]'
	@touch $@

$(VENV)/.stamp-dev: $(INPUTS) | tools $(VENV)/bin/python
	$(PY) -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.stamp-run

# The peers have an environment of their own: a router pins what it depends on.
.venv-peers/.stamp: Makefile | tools
	[ -x .venv-peers/bin/python ] || "$(PYTHON)" -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet '$(CROSSBAR)'
	@touch $@

.venv-wstest/.stamp: tests/conformance/requirements-py27.txt
	rm -rf .venv-wstest
	"$(PYTHON27)" -m pip install --quiet --disable-pip-version-check --target .venv-wstest/bootstrap 'virtualenv<20.22'
	PYTHONPATH=.venv-wstest/bootstrap "$(PYTHON27)" -m virtualenv --quiet .venv-wstest
	.venv-wstest/bin/pip install --quiet --disable-pip-version-check -r $<
	rm -rf .venv-wstest/bootstrap
	@touch $@

$(JS)/node_modules/.stamp: $(wildcard $(JS)/package.json $(JS)/package-lock.json)
	cd $(JS) && npm install --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: setup peers conformance-setup js-setup build
setup: $(VENV)/.stamp-dev ## .venv with the package, its extension and the tools of development

build: setup ## the release extension, in place
	@PROXY_BUILD=release $(PY) setup.py --quiet build_ext --inplace

peers: .venv-peers/.stamp js-setup conformance-setup ## what tests talk to: Crossbar.io, npm packages, wstest

js-setup:
ifeq ($(NODE),)
	@echo "make: no Node.js with npm: tests with autobahn-js are SKIPPED" >&2
else
	@if [ -f $(JS)/package.json ]; then $(MAKE) $(JS)/node_modules/.stamp; fi
endif

conformance-setup:
ifeq ($(PYTHON27),)
	@echo "make: no Python 2.7: the Autobahn test suite is SKIPPED (pyenv install 2.7.18, or WAMP_PYTHON27=...)" >&2
else
	@$(MAKE) .venv-wstest/.stamp
endif

# --- run and test ------------------------------------------------------------------------------------------------

.PHONY: run test quicktest conformance test-debug test-asan coverage
run: $(VENV)/.stamp-run ## a router with the proxy in front of it, a first call through both
	$(VENV)/bin/wamp-proxy quickstart $(ARGS)

test: build peers ## all tests, on the release build
	WAMP_PROXY_BUILD_MODE=release $(PYTEST) $(ARGS)

quicktest: build ## unit, property and quality tests only
	$(PYTEST) -m "not slow" $(wildcard tests/unit tests/property tests/quality) $(ARGS)

conformance: build conformance-setup ## the Autobahn test suite only, all of it (half an hour)
	WAMP_PROXY_CONFORMANCE=full $(PYTEST) tests/conformance $(ARGS)

# Other builds live in trees of their own, ahead of the editable install on the path of the tests and their children.
.PHONY: debug asan trace
debug asan trace: setup ## the extension with assertions | sanitizers | line events, in build/<mode>/lib
	@PROXY_BUILD=$@ $(PY) setup.py --quiet build --build-lib build/$@/lib

test-debug: debug peers ## the tests that drive the data plane, with assertions
	PYTHONPATH=$(CURDIR)/build/debug/lib WAMP_PROXY_BUILD_MODE=debug $(PYTEST) $(ASSERTED) $(ARGS)

# Reports go to files: a child's last words on stderr are easily lost, a file is not.
ASAN_REPORTS := $(CURDIR)/build/asan/reports
test-asan: asan peers ## the same with AddressSanitizer and UndefinedBehaviorSanitizer
	rm -rf $(ASAN_REPORTS) && mkdir -p $(ASAN_REPORTS)
	LD_PRELOAD="$$($${CC:-gcc} -print-file-name=libasan.so) $$($${CC:-gcc} -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:handle_segv=1:log_path=$(ASAN_REPORTS)/asan \
	UBSAN_OPTIONS=halt_on_error=1:abort_on_error=1:print_stacktrace=1:log_path=$(ASAN_REPORTS)/ubsan \
	PYTHONMALLOC=malloc PYTHONPATH=$(CURDIR)/build/asan/lib WAMP_PROXY_BUILD_MODE=asan \
	$(PYTEST) $(DEEP) $(ARGS)
	@if [ -n "$$(ls $(ASAN_REPORTS))" ]; then cat $(ASAN_REPORTS)/*; echo "make: sanitizer reports" >&2; exit 1; fi

coverage: trace ## line coverage of the Python modules and the Cython parts, in htmlcov
	$(PY) -m pip install --quiet coverage
	PYTHONPATH=$(CURDIR)/build/trace/lib WAMP_PROXY_BUILD_MODE=trace \
	$(PY) -m coverage run -m pytest $(wildcard tests/unit) $(ARGS)
	$(PY) -m coverage html

.PHONY: lint bench wheel sdist clean distclean
lint: setup ## ruff, mypy --strict, cython-lint
	$(PY) -m ruff check .
	$(PY) -m mypy
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cython-lint src  # finds pycodestyle by PATH

bench: build .venv-peers/.stamp ## side by side with the peers, into bench/results (Debian: libssl-dev)
	$(PY) bench/run.py $(ARGS)

wheel: setup ## dist/*.whl, release build; PROXY_OPENSSL=static puts OpenSSL into it
	rm -rf build/release/lib.* dist
	PROXY_BUILD=release $(PY) -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

sdist: setup ## dist/*.tar.gz
	$(PY) setup.py --quiet sdist
	@ls dist/*.tar.gz

clean: ## remove what was built, keep the environments
	rm -rf build dist htmlcov .coverage* src/*.egg-info src/proxy/*.so bench/build
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f $(VENV)/.stamp-*
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## and the environments
	rm -rf .venv .venv-peers .venv-wstest $(JS)/node_modules
