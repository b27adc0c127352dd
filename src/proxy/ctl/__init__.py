"""``wamp-proxy ctl``: the command line over a worker's management socket."""
