"""``python -m proxy`` is ``wamp-proxy``."""

from proxy.cli import main

main(prog_name="wamp-proxy")
