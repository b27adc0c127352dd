"""From a file to a checked worker item: JSON or YAML, a worker item alone or a whole Crossbar.io node configuration."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from proxy.config import authenticators, cookie_review, relayed, review
from proxy.config.findings import ConfigError, Finding, Place, finding, suggest, validation_findings
from proxy.config.worker import WorkerConfig

FILE_MAX = 16 * 1024 * 1024
"""Octets of a configuration file; anything larger is not one."""
_NODE_KEYS = ("version", "controller", "workers")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be run.

    :ivar warnings: what is ignored or has no effect.
    """

    config: WorkerConfig
    warnings: list[Finding]


class _Table(dict[Any, Any]):
    """A mapping that remembers which of its keys the file gives more than once."""

    repeated: tuple[Any, ...] = ()


def _table(pairs: list[tuple[Any, Any]]) -> _Table:
    table = _Table(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        table.repeated = tuple(name for name in table if names.count(name) > 1)
    return table


class _YamlLoader(yaml.SafeLoader):
    """PyYAML's safe loader, with tables that remember repeated keys."""


def _construct_table(loader: _YamlLoader, node: yaml.MappingNode) -> Iterator[_Table]:
    names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    table = _Table()
    yield table
    table.update(loader.construct_mapping(node))
    table.repeated = tuple(dict.fromkeys(name for name in names if names.count(name) > 1))


_YamlLoader.add_constructor("tag:yaml.org,2002:map", _construct_table)


def load(path: str | Path, worker_id: str | None = None) -> Loaded:
    """Read and check a configuration.

    :param path: a JSON or YAML file. Relative paths in it are relative to its folder.
    :param worker_id: which proxy worker of a node configuration is meant; may be left out where there is one.
    :raises ConfigError: with everything that was found, warnings included.
    """
    path = Path(path)
    data, prefix = _select(_parse(path), worker_id)
    findings = [*_repeated_keys(data, prefix), *review.stray_keys(data, prefix), *review.names(data, prefix)]
    config = None
    try:
        config = WorkerConfig.model_validate(data, context={"folder": path.resolve().parent})
    except ValidationError as error:
        findings += validation_findings(error, data, prefix)
    else:
        findings += [*review.connections(config, prefix), *review.transports(config, prefix)]
        findings += review.permits(config, prefix)
        findings += authenticators.findings(config, prefix)
        findings += relayed.findings(config, prefix)
        findings += cookie_review.findings(config, prefix)
    if config is None or any(item.severity == "error" for item in findings):
        raise ConfigError(findings)
    return Loaded(config, findings)


def check(path: str | Path, worker_id: str | None = None) -> list[Finding]:
    """Everything there is to say about a configuration, errors first; parameters as for :func:`load`."""
    try:
        return load(path, worker_id).warnings
    except ConfigError as error:
        return error.findings


def read_item(path: str | Path) -> Any:
    """One item of a configuration, as a file has it; it is not checked otherwise.

    :param path: a JSON or YAML file. Its name need not say which: ``{type: websocket}`` is YAML.
    :raises ConfigError: it cannot be read, or gives a key more than once.
    """
    path = Path(path)
    text = _read(path)
    is_json = _is_json(path, text)
    try:
        data = _parse_text(text, is_json, path)
    except ConfigError as error:
        if not is_json or path.suffix.lower() == ".json":
            raise
        try:
            data = _parse_text(text, False, path)
        except ConfigError:
            raise error from None
    findings = list(_repeated_keys(data, ()))
    if findings:
        raise ConfigError(findings)
    return data


def checked(model: Any, item: Any, folder: Path) -> tuple[Any, Any]:
    """One item of a configuration, checked.

    :param model: what it is to be: a model, or a union of models.
    :param item: a mapping, or an instance of the model, which is taken as it is.
    :param folder: relative paths are relative to it.
    :returns: the instance, and the item as it was given.
    :raises ConfigError: with everything that is wrong with it.
    """
    if isinstance(item, BaseModel):
        return item, item.model_dump(mode="json", exclude_unset=True, by_alias=True)
    try:
        return _adapter(model).validate_python(item, context={"folder": folder}), item
    except ValidationError as error:
        raise ConfigError(validation_findings(error, item, ())) from error


@lru_cache(maxsize=16)
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def _fail(place: Place, value: Any, expected: str) -> ConfigError:
    return ConfigError([finding(place, value, expected)])


def _parse(path: Path) -> Any:
    """Read a file as its name says, or else as it begins."""
    text = _read(path)
    return _parse_text(text, _is_json(path, text), path)


def _is_json(path: Path, text: str) -> bool:
    suffix = path.suffix.lower()
    return suffix == ".json" or (suffix not in (".yaml", ".yml") and text.lstrip().startswith("{"))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            octets = file.read(FILE_MAX + 1)
        if len(octets) > FILE_MAX:
            raise ConfigError([Finding("", str(path), f"expected a file of at most {FILE_MAX} octets")])
        return octets.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError([Finding("", str(path), f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Finding("", str(path), f"expected UTF-8 text, octet {error.start} is not")]) from None


def _parse_text(text: str, is_json: bool, path: Path) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_table) if is_json else yaml.load(text, _YamlLoader)  # noqa: S506
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        wanted = f"expected {'JSON' if is_json else 'YAML'}: {_why(error)}"
        raise ConfigError([Finding(_mark(error), str(path), wanted)]) from None


def _mark(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}, column {mark.column + 1}"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}"
    return ""


def _why(error: Exception) -> str:
    """The parser's reason, without the piece of the file that it would quote: that may hold secrets."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return getattr(error, "problem", None) or "unreadable"


def _select(data: Any, worker_id: str | None) -> tuple[Mapping[str, Any], Place]:
    """The worker item in the data, and its place."""
    if not isinstance(data, Mapping):
        raise _fail((), data, "expected a mapping: a proxy worker item or a Crossbar.io node configuration")
    if "workers" in data:
        return _select_from_node(data, worker_id)
    if data.get("type") == "proxy" or not any(key in data for key in _NODE_KEYS):
        if worker_id not in (None, data.get("id", WorkerConfig.model_fields["id"].default)):
            raise _fail(("id",), data.get("id"), f'expected the worker "{worker_id}"')
        if "type" not in data:
            raise ConfigError([Finding("type", "", 'required key is missing: expected "proxy" (or a list of workers)')])
        if data["type"] != "proxy":
            raise _fail(("type",), data["type"], 'expected "proxy"')
        return data, ()
    raise ConfigError([Finding("workers", "", "required key is missing: expected a list with a worker of type proxy")])


def _select_from_node(data: Mapping[str, Any], worker_id: str | None) -> tuple[Mapping[str, Any], Place]:
    workers = data["workers"]
    if not isinstance(workers, list) or not all(isinstance(worker, Mapping) for worker in workers):
        raise _fail(("workers",), workers, "expected a list of mappings")
    proxies = {}
    unnamed = 0
    for index, worker in enumerate(workers):
        name = worker.get("id")
        if name is None:
            # The node counts its unnamed workers from 1, whatever their type.
            unnamed += 1
            name = f"worker{unnamed:03d}"
        if worker.get("type") == "proxy":
            proxies[str(name)] = (index, worker if "id" in worker else _with_id(worker, name))
    if not proxies:
        raise _fail(("workers",), workers, "expected a worker of type proxy among them")
    names = ", ".join(proxies)
    if worker_id is None:
        candidates = [name for name, (_, worker) in proxies.items() if not _is_disabled(worker)] or list(proxies)
        if len(candidates) > 1:
            raise _fail(("workers",), workers, f"several proxy workers: name one of {names} with --worker")
        worker_id = candidates[0]
    if worker_id not in proxies:
        text = f'no proxy worker "{worker_id}": expected one of {names}' + suggest(worker_id, proxies)
        raise _fail(("workers",), workers, text)
    index, worker = proxies[worker_id]
    return worker, ("workers", index)


def _with_id(worker: Mapping[str, Any], name: str) -> _Table:
    table = _Table({**worker, "id": name})
    table.repeated = getattr(worker, "repeated", ())
    return table


def _is_disabled(worker: Mapping[str, Any]) -> bool:
    """Whether the node would leave this worker out at boot."""
    options = worker.get("options")
    return isinstance(options, Mapping) and options.get("disabled") is True


def _repeated_keys(data: Any, place: Place, seen: set[int] | None = None) -> Iterator[Finding]:
    # Each container is looked at once: aliases of YAML can make one reachable in very many ways, or from itself.
    seen = set() if seen is None else seen
    if id(data) in seen:
        return
    seen.add(id(data))
    if isinstance(data, Mapping):
        for name in getattr(data, "repeated", ()):
            yield finding((*place, name), data.get(name), "given more than once: expected one")
        for name, value in data.items():
            yield from _repeated_keys(value, (*place, name if isinstance(name, (str, int)) else str(name)), seen)
    elif isinstance(data, (list, tuple)):
        for index, value in enumerate(data):
            yield from _repeated_keys(value, (*place, index), seen)
