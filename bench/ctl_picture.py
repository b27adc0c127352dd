"""Make docs/ctl.svg: what ``wamp-proxy ctl`` prints on a terminal, of a real worker with real clients.

``python bench/ctl_picture.py [PATH]``, in the environment that ``make run`` uses.
"""

import asyncio
import os
import pty
import re
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from proxy.children import Child
from proxy.demo import DemoClient
from proxy.quickstart import REALM

COLUMNS = 124
CLIENTS = 4
EVENTS = 4  # a drain: begun, done; a transport: stopping, stopped
TARGET = Path(__file__).resolve().parents[1] / "docs" / "ctl.svg"
START = 60.0
# rich's own format asks another site for its font.
FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
  <style>
    .{unique_id}-matrix {{
      font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
      font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
    }}
    {styles}
  </style>
  <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
  </defs>
  {chrome}
  <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
    {matrix}
    </g>
  </g>
</svg>
"""
SPACE = "&#160;"
LEADING_SPACES = re.compile(rf'(<text [^>]*?)x="([\d.]+)"([^>]*?)textLength="([\d.]+)"([^>]*>)((?:{SPACE})+)')
CELL = 12.2  # width of a character in rich's pictures


class Terminal:
    """Runs commands on a terminal and keeps what they print.

    :param socket: the worker's management socket.
    """

    def __init__(self, socket: str) -> None:
        self.text = Text()
        self._env = {**os.environ, "WAMP_PROXY_SOCKET": socket, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
        self._env.pop("NO_COLOR", None)

    def begin(self, arguments: str) -> tuple[subprocess.Popen[bytes], int]:
        """Start a command: its process, and our end of its terminal."""
        ours, theirs = pty.openpty()
        argv = [sys.executable, "-m", "proxy", "ctl", *arguments.split()]
        process = subprocess.Popen(argv, stdout=theirs, stderr=theirs, env=self._env)
        os.close(theirs)
        return process, ours

    def end(self, arguments: str, process: subprocess.Popen[bytes], ours: int) -> None:
        """Wait for a command, and show it."""
        octets = bytearray()
        try:
            while piece := os.read(ours, 65536):
                octets += piece
        except OSError:
            pass  # the end, on Linux
        finally:
            os.close(ours)
            process.wait()
        self.text.append("$ ", "bold green")
        self.text.append(f"wamp-proxy ctl {arguments}\n", "bold")
        self.text.append_text(Text.from_ansi(_last_state(octets.decode())))
        self.text.append("\n")

    def run(self, arguments: str) -> None:
        """Run a command to its end."""
        self.end(arguments, *self.begin(arguments))

    def save(self, path: Path) -> None:
        """Draw it."""
        with Path(os.devnull).open("w") as nowhere:
            console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
            self.text.rstrip()
            console.print(self.text, overflow="fold")
            console.print()  # room for the descenders of the last line
            svg = console.export_svg(title="wamp-proxy ctl", theme=MONOKAI, code_format=FORMAT, unique_id="ctl")
        svg = LEADING_SPACES.sub(_without_leading_spaces, svg)
        path.write_text(re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE))


def _without_leading_spaces(match: re.Match[str]) -> str:
    """A piece of text that begins where its first character is: some programs leave spaces in front out."""
    before, x, between, length, after, spaces = match.groups()
    width = CELL * (len(spaces) // len(SPACE))
    return f'{before}x="{float(x) + width:g}"{between}textLength="{float(length) - width:g}"{after}'


def _last_state(text: str) -> str:
    """What is left on the screen of something that draws progress: lines that were erased are gone."""
    text = re.sub(r"\x1b\[\?25[lh]", "", text).replace("\r\n", "\n")
    text = re.sub(r"[^\n]*\n\r?\x1b\[1A\x1b\[2K", "", text)
    return "\n".join(re.split(r"\r(?:\x1b\[2K)?", line)[-1] for line in text.split("\n"))


async def draw(target: Path) -> None:
    """Start the quickstart's router and proxy, join clients, run commands."""
    async with AsyncExitStack() as stack:
        argv = [sys.executable, "-m", "proxy", "quickstart"]
        child = await Child.start(stack, "quickstart", argv)
        found: dict[str, str] = {}
        child.forward(lambda _, line: found.update(_find(line)))
        await child.wait_until(lambda: "socket" in found, "say how to look into the proxy", START)
        for number in range(CLIENTS):
            url = found["websocket"] if number % 2 else found["rawsocket"]
            host, port = url.split("/")[2].split(":")
            client = DemoClient(f"client{number}", url, REALM)
            await client.join(host, int(port))
            stack.push_async_callback(client.leave)
        terminal = Terminal(found["socket"])
        await asyncio.to_thread(_show, terminal)
        terminal.save(target)


def _show(terminal: Terminal) -> None:
    terminal.run("transports")
    terminal.run("sessions")
    terminal.run("stop connection router")
    watch = f"watch --count {EVENTS}"
    watching = terminal.begin(watch)
    os.read(watching[1], 100)  # it listens
    terminal.run("drain transport websocket --rate 5 --wait")
    terminal.run("stop transport rawsocket")
    terminal.end(watch, *watching)


def _find(line: str) -> dict[str, str]:
    for name, pattern in (
        ("websocket", r"WebSocket +(ws://\S+)"),
        ("rawsocket", r"RawSocket +(rs://\S+)"),
        ("socket", r"ctl --socket (\S+)"),
    ):
        match = re.search(pattern, line)
        if match:
            return {name: match[1]}
    return {}


if __name__ == "__main__":
    asyncio.run(draw(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET))
