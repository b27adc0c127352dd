#include "options.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "client.h"

static authmethod_t method = AUTH_ANONYMOUS;
static unsigned users = 100;
static const char *secret = "secret";

static bool session_option(const char *name, const char *v) {
    if (!strcmp(name, "--target")) return setup.host = v, address_parse(v, &setup.target);
    if (!strcmp(name, "--path")) return setup.path = v, true;
    if (!strcmp(name, "--realm")) return setup.realm = v, strlen(v) < 256;
    if (!strcmp(name, "--auth")) return authmethod_parse(v, &method);
    if (!strcmp(name, "--users")) return (users = (unsigned)atoi(v)) > 0;
    if (!strcmp(name, "--secret")) return secret = v, true;
    if (!strcmp(name, "--serializer")) return (setup.ser = subprotocol_parse(v, strlen(v), &setup.batched)) != SER_NONE;
    if (!strcmp(name, "--deflate")) {
        setup.deflate = !strcmp(v, "fresh") ? DEFLATE_FRESH : DEFLATE_TAKEOVER;
        return setup.deflate == DEFLATE_FRESH || !strcmp(v, "takeover");
    }
    if (!strcmp(name, "--tls")) return tls_setup.ca = v, true;
    if (!strcmp(name, "--tls-version"))
        return tls_setup.version = v, !strcmp(v, "1.3") || !strcmp(v, "1.2");
    if (!strcmp(name, "--tls-cipher")) return tls_setup.cipher = v, true;
    if (!strcmp(name, "--tls-group")) return tls_setup.group = v, true;
    if (!strcmp(name, "--tls-alpn")) return tls_setup.alpn = v, true;
    if (!strcmp(name, "--tls-handshakes")) {
        tls_setup.resumes = !strcmp(v, "resumed");
        return tls_setup.resumes || !strcmp(v, "full");
    }
    if (!strcmp(name, "--transport")) {
        setup.framing = !strcmp(v, "rawsocket") ? FRAMING_RAWSOCKET : FRAMING_WEBSOCKET;
        return setup.framing == FRAMING_RAWSOCKET || !strcmp(v, "websocket");
    }
    return false;
}

void options_read(int argc, char **argv, bool (*program)(const char *name, const char *value), const char *usage) {
    setup.framing = FRAMING_WEBSOCKET;
    setup.ser = SER_CBOR;
    setup.path = "/";
    setup.realm = "realm1";
    setup.inflight = 1;
    setup.payload = 64;
    for (int i = 1; i < argc; i += 2)
        if (i + 1 == argc || !(session_option(argv[i], argv[i + 1]) || program(argv[i], argv[i + 1])))
            die("unknown option or bad value", argv[i]);
    if (!setup.target.len) die(usage, NULL);
    if (setup.framing == FRAMING_RAWSOCKET && (setup.batched || setup.deflate))
        die("RawSocket knows neither batches nor compression", NULL);
    setup.host = setup.target.family == AF_INET ? setup.host + 4 : "localhost"; /* "tcp:" is not part of Host */
    auth_prepare(method, users, secret);
    tls_prepare();
    raise_fd_limit();
    setup.epoll = epoll_create1(EPOLL_CLOEXEC);
    setup.random = random_seed();
}
