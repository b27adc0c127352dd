"""What commands print: tables and lines for people, JSON for scripts.

Much of it was chosen by clients of the proxy (authids, reasons), so nothing gets to a terminal that it would obey.
"""

import base64
import json
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

__all__ = ["Output", "Table", "cleaned", "to_json"]

# Unicode categories of what may change how the rest of a line is shown: control, format, surrogate, line separators.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_STYLES: Final = {
    "started": "green",
    "failed": "bold red",
    "stopped": "dim",
    "created": "dim",
    "starting": "yellow",
    "stopping": "yellow",
    "draining": "yellow",
    "down": "bold red",
}
_NOTHING: Final = "-"
_GAP: Final = "  "


def cleaned(text: str, keep: str = "") -> str:
    """Text without anything that a terminal obeys: such characters become ``\\uXXXX``.

    :param keep: characters that stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _escaped(char) if char not in keep and unicodedata.category(char) in _UNSEEN else char for char in text
    )


def _escaped(char: str) -> str:
    octets = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{octets[index : index + 2].hex()}" for index in range(0, len(octets), 2))


def to_json(value: Any, indent: int | None = 2) -> str:
    """A value of WAMP as JSON; octets as WAMP's JSON has them: a string of NUL and Base64."""
    # In JSON, the escapes of cleaned() mean the very character.
    return cleaned(json.dumps(value, indent=indent, ensure_ascii=False, default=_octets), keep="\n")


def _octets(value: object) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\0" + base64.b64encode(bytes(value)).decode()
    return str(value)


class Output:
    """Where a command's results go.

    :param as_json: scripts want it.
    :param console: for people; None: one on stdout.

    :ivar is_live: somebody looks on, so that progress may be drawn.
    """

    def __init__(self, *, as_json: bool, console: Console | None = None) -> None:
        self.as_json = as_json
        self.console = console or Console(file=sys.stdout, highlight=False, soft_wrap=True, emoji=False)
        self.is_live = self.console.is_terminal and not as_json
        self._has_pieces = False

    def json(self, value: Any, indent: int | None = 2) -> None:
        """A value for scripts."""
        self._write(to_json(value, indent))

    def pieces(self, values: Sequence[Any]) -> None:
        """More values of a list for scripts, that may be too long to hold."""
        for value in values:
            self._write(("," if self._has_pieces else "[") + to_json(value, None))
            self._has_pieces = True

    def end_of_pieces(self) -> None:
        """That was the list."""
        self._write("]" if self._has_pieces else "[]")

    def line(self, text: str, style: str = "") -> None:
        """A line for people."""
        self.text(Text(cleaned(text), style=style))

    def text(self, text: Text) -> None:
        """A line that is cleaned already."""
        if self.console.is_terminal:
            self.console.print(text, soft_wrap=True)
        else:
            self._write(text.plain)

    def heading(self, text: str) -> None:
        """A line over a table."""
        self.line(text, "bold")

    def details(self, value: Mapping[str, Any]) -> None:
        """One object, for people: YAML."""
        text = yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=4096)
        for line in text.rstrip("\n").split("\n"):
            self.line(line)

    def table(self, *columns: str) -> "Table":
        """A new table; nothing is printed yet."""
        return Table(self, columns)

    def _write(self, text: str) -> None:
        self.console.file.write(text + "\n")
        self.console.file.flush()


class Table:
    """Rows under headings. Long ones are printed piece by piece.

    A column named ``"NAME>"`` is aligned to the right; ``"NAME?"`` is left out where a terminal is too narrow for all.
    Nothing is folded, so that everything can be selected and copied.
    """

    def __init__(self, output: Output, columns: Sequence[str]) -> None:
        self._output = output
        self._names = [name.rstrip(">?") for name in columns]
        self._rights = [">" in name for name in columns]
        self._dispensable = [index for index, name in enumerate(columns) if "?" in name]
        self._widths = [len(name) for name in self._names]
        self._shown: list[int] = []

    def print(self, rows: Sequence[Sequence[object]]) -> None:
        """Print rows; the first time with the headings above them."""
        cells = [[cleaned(str(_NOTHING if cell in (None, "") else cell)) for cell in row] for row in rows]
        for row in cells:
            self._widths = [max(width, cell_len(cell)) for width, cell in zip(self._widths, row, strict=True)]
        is_first = not self._shown
        if is_first:
            self._shown = self._fitting()
            self._line(self._names, "bold")
        for row in cells:
            self._line(row)

    def _fitting(self) -> list[int]:
        """The columns that there is room for."""
        shown = list(range(len(self._names)))
        if self._output.console.is_terminal:
            dispensable = list(self._dispensable)
            while dispensable and sum(self._widths[index] + len(_GAP) for index in shown) > self._output.console.width:
                shown.remove(dispensable.pop())
        return shown

    def _line(self, row: Sequence[str], style: str = "") -> None:
        text = Text()
        for index in self._shown:
            padding = " " * (self._widths[index] - cell_len(row[index]))
            before, after = (padding, "") if self._rights[index] else ("", padding)
            text.append(before)
            text.append(row[index], style or _STYLES.get(row[index], ""))
            text.append(after + _GAP)
        text.rstrip()
        self._output.text(text)
