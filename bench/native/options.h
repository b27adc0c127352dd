/* Options of a load generator that say where its sessions go and what they are like. */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include <stdbool.h>

#define SESSION_USAGE                                                                       \
    "--target tcp:IPV4:PORT|unix:PATH [--transport websocket|rawsocket] "                   \
    "[--serializer cbor|msgpack|json[.batched]] [--deflate takeover|fresh] [--path P] [--realm R] " \
    "[--auth anonymous|ticket|wampcra|cryptosign] [--users N] [--secret TEXT] "             \
    "[--tls CA.pem] [--tls-version 1.3|1.2] [--tls-cipher NAME] [--tls-group NAME] [--tls-alpn NAME] " \
    "[--tls-handshakes full|resumed] "

/* Fills setup in: `program` sets its own options, and says whether it knows one and its value. Ends with `usage` where
 * something is missing. */
void options_read(int argc, char **argv, bool (*program)(const char *name, const char *value), const char *usage);

#endif
