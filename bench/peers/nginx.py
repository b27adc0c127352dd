"""nginx with proxy_pass and the upgrade headers."""

from __future__ import annotations

from peers.base import Backend, Peer, children_of, find_program, output_of

CONFIG = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {workdir}/nginx.pid;
error_log stderr error;
events {{ worker_connections 16000; }}
http {{
    access_log off;
    client_body_temp_path {workdir}/body;
    proxy_temp_path {workdir}/proxy;
    fastcgi_temp_path {workdir}/fastcgi;
    uwsgi_temp_path {workdir}/uwsgi;
    scgi_temp_path {workdir}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://127.0.0.1:{backend};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_buffer_size 16k;
            proxy_busy_buffers_size 16k;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }}
    }}
}}
"""


class Nginx(Peer):
    name = "nginx"
    family = "nginx"
    label = "nginx"

    def version(self) -> str:
        return output_of(find_program("nginx", "NGINX"), "-v").rsplit(" ", 1)[-1]

    def setup(self) -> str:
        return "worker_processes 1, buffers of 16 KiB as HAProxy's; WebSocket in, WebSocket over TCP loopback out"

    def command(self, backend: Backend) -> list[str]:
        config = self.workdir / "nginx.conf"
        config.write_text(CONFIG.format(port=self.port, backend=backend.port, workdir=self.workdir), encoding="utf-8")
        return [find_program("nginx", "NGINX"), "-e", "stderr", "-p", str(self.workdir), "-c", str(config)]

    def pids(self) -> list[int]:
        assert self.process is not None
        return children_of(self.process.pid)
