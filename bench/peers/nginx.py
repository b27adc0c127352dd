"""nginx with proxy_pass and the upgrade headers."""

from __future__ import annotations

from peers.base import Backend, Peer, children_of, find_program, output_of
from peers.certificates import Certificate

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
{servers}
}}
"""

SERVER = """\
    server {{
        listen 127.0.0.1:{port} backlog=4096{tls};
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
"""

TLS = """ ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_tickets on"""


class Nginx(Peer):
    name = "nginx"
    family = "nginx"
    label = "nginx"

    def version(self) -> str:
        return output_of(find_program("nginx", "NGINX"), "-v").rsplit(" ", 1)[-1]

    def setup(self) -> str:
        return "worker_processes 1, buffers of 16 KiB as HAProxy's; WebSocket in, WebSocket over TCP loopback out"

    @staticmethod
    def server(port: int, shown: Certificate | None, backend: Backend) -> str:
        """A server of the configuration."""
        tls = TLS.format(certificate=shown.certificate, key=shown.key) if shown else ""
        return SERVER.format(port=port, tls=tls, backend=backend.port)

    def command(self, backend: Backend) -> list[str]:
        config = self.workdir / "nginx.conf"
        servers = "".join(self.server(port, shown, backend) for port, shown in self.listens().values())
        config.write_text(CONFIG.format(servers=servers, workdir=self.workdir), encoding="utf-8")
        return [find_program("nginx", "NGINX"), "-e", "stderr", "-p", str(self.workdir), "-c", str(config)]

    def pids(self) -> list[int]:
        assert self.process is not None
        return children_of(self.process.pid)


class NginxTls(Nginx):
    """The same with TLS in front."""

    name = "nginx-tls"
    label = "nginx, TLS"
    tls = True

    def setup(self) -> str:
        return "worker_processes 1, buffers of 16 KiB; WebSocket over TLS in, WebSocket over TCP loopback out"
