# types.pxi - all structures, with their invariants beside the fields. Part of proxy._relay (see src/_relay.pyx).
#
# All-zero is the valid empty state of every structure here.

# What frame_next and frame_put need to know of a connection. Lives inside conn_t.
ctypedef struct codec_t:
    uint8_t kind                   # CODEC_*
    uint8_t serializer             # SER_*; SER_NONE with CF_ANY_OPCODE only
    uint8_t asm_op                 # opcode (OP_RSV1 added: compressed) of the message in fragments; 0: none
    uint16_t flags                 # CF_*
    uint32_t max_out               # octets of one outgoing message that the peer takes; 0: no limit
    uint64_t max_frame             # octets of one incoming frame's payload; 0: no limit but max_message
    uint64_t max_message           # octets of one incoming message; 0: no limit
    uint64_t asm_len               # octets put together so far, at the start of the unconsumed input
    uint64_t asm_gap               # octets after them that are spent (headers, interleaved control frames)
    uint32_t batch_left            # octets of a batch not taken apart yet, at the start of the input (unmasked)
    uint32_t batch_gap             # octets after them that are spent

# One result of frame_next. Pointers are borrowed: valid until the buffer is touched.
ctypedef struct frame_t:
    uint8_t kind                   # FRAME_*
    uint8_t opcode                 # OP_TEXT or OP_BINARY of a message, OP_* of a control frame
    bint compressed                # a message whose first frame had RSV1: the payload is a DEFLATE stream
    uint8_t *payload               # unmasked
    size_t length                  # octets of payload
    size_t consumed                # octets to drop from the front of the input before the next call
    size_t need                    # when frame_next returned ST_MORE: input octets needed at least (total, not extra)

# What the gate read of a message.
ctypedef struct wamp_t:
    uint32_t type                  # message type code; valid when the plan is PLAN_PASS, PLAN_CONTROL or ST_FORBIDDEN
    uint32_t elements              # elements of the outer array where the encoding states it, else 0 (JSON)

# Linear buffer: data is base[start:end], base[0:start] is headroom or spent. start <= end <= cap; base NULL: all 0.
ctypedef struct buf_t:
    uint8_t *base
    uint32_t cap
    uint32_t start
    uint32_t end

# Where sans-IO writers put one message at a time: memory that grows, never to more than `max` octets of data.
# Data is base[BUF_HEADROOM:BUF_HEADROOM + len]. Made, reset and freed by sink.pxi.
ctypedef struct sink_t:
    uint8_t *base
    size_t cap
    size_t len
    size_t max                     # octets; 0: no limit

# One open container of a message that is being translated.
ctypedef struct level_t:
    uint64_t items                 # begun so far: elements of an array; keys and values of a map
    uint64_t left                  # still to come, the present one included, where the source states it; else huge
    uint64_t limit                 # items that the head has room for; one more, and it must be widened
    size_t head                    # place of the head in the output, where its count is not known yet
    uint8_t width                  # octets of that head; 0: the count was known, or JSON
    bint is_map

# A head that becomes wider only when the rest of the message is written.
ctypedef struct late_t:
    size_t head
    uint64_t count
    uint8_t width                  # octets it has now; 0: this head stays as it is
    bint is_map

# One translation; lives on the C stack, and only as many levels as the message is deep are ever touched.
ctypedef struct translate_t:
    const uint8_t *p               # the message
    size_t n
    sink_t *out
    const char *why                # what cannot be translated
    uint8_t target                 # SER_*
    unsigned depth                 # level == &levels[depth]; levels[0] holds the message itself as its one item
    unsigned late_depth            # the levels up to here may have an entry in late; 0: heads are still widened at once
    uint64_t moves                 # octets that may still be moved to widen heads at once
    level_t *level
    level_t levels[257]            # SCAN_DEPTH_MAX + 1
    late_t late[257]

# What a link must remember of single messages; see NOTE_*.
ctypedef struct note_t:
    uint64_t id                    # request or subscription
    uint64_t other                 # NOTE_UNSUBSCRIBE: the subscription
    uint16_t rule                  # where session IDs are, see rewrite.pxi
    uint8_t kind                   # NOTE_*

# Made when there is something to note. At most NOTES_MAX.
ctypedef struct notes_t:
    uint32_t count
    uint32_t cap
    uint32_t dead                  # notes of kind NOTE_DEAD_*
    note_t *notes

# A realm as the session-ID map knows it. Never moves, lives as long as the relay.
ctypedef struct realm_t:
    uint64_t mapped                # atomic: sessions in the map, the lingering ones included; 0: nothing to rewrite
    uint64_t joining               # atomic: sessions with a front_sid of their own whose WELCOME is not read yet
    uint32_t index
    void *sids                     # sids_t: the worker's map

# One direction of one session in the map: key -> value. In a chain of one bucket.
ctypedef struct sid_t:
    uint64_t key
    uint64_t value
    uint64_t until                 # ms, known until then because the session has ended; 0: it lives
    uint32_t realm
    sid_t *next

# A part of the map. Buckets 0 to buckets - 1 exist, SID_SEGMENT of them in each segment; buckets 0: nothing yet.
ctypedef struct sid_table_t:
    pthread_mutex_t mutex
    sid_t ***segments
    uint32_t capacity              # segments that the directory has room for
    uint32_t buckets
    uint32_t mask                  # (smallest power of two above buckets) - 1
    uint32_t count                 # entries
    uint8_t spare[64]              # keeps the next mutex out of this one's cache line

# A session that has ended, or a back_sid that a session no longer has.
ctypedef struct sid_gone_t:
    realm_t *realm
    uint64_t front_sid
    uint64_t back_sid
    uint64_t until                 # ms

# The worker's session IDs. An entry of to_back or to_front with `until` has one of `gone` that will remove it.
# Locks: `mutex` is never held together with another one; to_back's is taken before to_front's.
ctypedef struct sids_t:
    bint ready
    sid_table_t to_front[64]       # SID_SHARDS: by back_sid
    sid_table_t to_back[64]        # by front_sid
    pthread_mutex_t mutex          # of all below
    sid_gone_t *gone               # ring, oldest first
    uint32_t gone_size             # a power of two, or 0
    uint32_t gone_head
    uint32_t gone_count
    uint64_t now                   # atomic: ms, the latest that drop or sweep was told
    uint64_t realms                # atomic: numbers given
    realm_t *chunks[256]           # REALMS_MAX / REALM_CHUNK

# One item that a field cursor met. Positions are octets from the start of the message.
ctypedef struct item_t:
    uint8_t kind                   # ITEM_*
    bint spelled                   # a text that is not as it stands: JSON escapes, CBOR chunks
    size_t start
    size_t end                     # behind the item; of a container behind its head only
    size_t text                    # where the text starts
    size_t length                  # octets of the text as it stands; of `spelled` ones: with escapes or chunk heads
    uint64_t value                 # ITEM_UINT; containers: elements or pairs to come, ITEM_OPEN: until it closes

# What fields_request reads of a message.
ctypedef struct fields_t:
    uint64_t request
    uint32_t request_type          # of an ERROR, else 0
    bint progress                  # of a PUBLISH: acknowledge

# One message on its way through the rewriter. What stands before `copied` is in `out`, changed or not.
ctypedef struct rewrite_t:
    const uint8_t *p
    size_t n
    size_t at                      # the field cursor
    size_t copied
    sink_t *out                    # untouched while copied is 0
    realm_t *realm
    uint8_t ser                    # SER_*
    uint8_t direction              # DIR_*
    bint waits                     # an unknown session is one to wait for: in the payload of an on_join event
    bint progress                  # Details.progress is true
    uint16_t rule                  # RULE_* of the arguments, as far as it is known
    uint16_t result                # RULE_* of the RESULT that will answer this CALL
    uint64_t subscription          # Details.subscription of an UNSUBSCRIBED
    uint64_t first                 # elements 1 and 2 where they are numbers: requests, subscriptions, a request's type
    uint64_t second

# DEFLATE streams of one loop that keep nothing from one message to the next. Made by deflate.pxi when first needed.
ctypedef struct zips_t:
    uint64_t *octets               # counts the memory of all streams, these and the connections' own; NULL: nobody does
    z_stream *reader               # window of 2^15 octets
    z_stream *writers[63]          # by (window bits - 9) * 9 + mem_level - 1

# permessage-deflate on one connection. A stream of its own exists once it was needed.
ctypedef struct zip_t:
    zips_t *shared
    uint8_t inflate_bits           # 9 .. 15
    uint8_t deflate_bits           # 9 .. 15
    uint8_t mem_level              # 1 .. 9
    bint inflate_reset             # the peer uses no context takeover: shared.reader serves
    bint deflate_reset             # we use none: one of shared.writers serves
    bint reading                   # reader is open
    bint writing                   # writer is open
    z_stream reader
    z_stream writer

ctypedef struct params_t

# What new TLS handshakes begin with; may be replaced at any time. Lives as long as the relay.
ctypedef struct tls_t:
    pthread_mutex_t mutex          # of the rest
    SSL_CTX *ctx                   # owned; NULL: no handshakes any more
    SSL_SESSION *session           # client side: owned, what the peer gave last to resume from; NULL: nothing
    const params_t *session_for    # whose server_name was checked when it was given

# Addresses that begin with the same bits.
ctypedef struct network_t:
    uint8_t family                 # 4, 6; 1: Unix
    uint8_t bits
    uint8_t address[16]

# What the connections of one transport or backend share. Written once before use, freed with the Relay.
ctypedef struct params_t:
    uint8_t kind                   # CODEC_*
    uint16_t codec_flags           # CF_*
    bint fail_by_drop
    bint echo_close
    bint ping_restart
    bint nodelay
    bint keepalive
    uint32_t serializers           # bit set of 1 << SER_*
    uint32_t max_head
    uint64_t max_message
    uint64_t max_frame
    uint32_t max_out               # WebSocket: octets of one outgoing message that the peer takes; 0: no limit
    uint64_t auto_fragment
    uint32_t high_water
    uint32_t low_water
    uint32_t handshake_ms
    uint32_t hello_ms
    uint32_t close_ms
    uint32_t stall_ms
    uint32_t ping_interval_ms
    uint32_t ping_timeout_ms
    uint32_t ping_size
    tls_t *tls                     # NULL: plain
    bint server_name_is_ip
    char server_name[256]          # back: what the certificate must name; empty: it is not checked
    params_t *rawsocket            # front, CODEC_WS: of those whose first octet is RawSocket's; NULL: they are refused
    int raw_first                  # front: first octet of those that are EV_RAW; -1: none
    uint32_t proxy_count
    network_t *proxy_from          # from where a PROXY protocol header must come; freed with the params

# A listening socket, shared by all loops. fd is closed by the last loop that leaves it.
ctypedef struct listener_t:
    int fd                         # -1: the entry is free
    bint closing                   # unlisten() was called; the control plane's own
    uint64_t id
    params_t *params
    uint64_t max_connections
    uint64_t count                 # atomic: live connections that came through it
    uint64_t loops                 # atomic: loops that may still accept on it
    uint64_t full_event_ms         # atomic: when "full" was last told

# One end. prev/next of the timer wheel and of the ready list are slot + 1, 0: none.
# Invariants: FREE <=> fd == -1. peer != 0 => the other's peer names this slot (or this is its own peer: echo).
# rx holds octets only while a message is incomplete or reading is paused; tx only while the socket does not take them.
ctypedef struct conn_t:
    int fd
    uint32_t slot
    uint32_t gen                   # counts up at every release; never 0
    uint8_t phase                  # PHASE_*
    uint8_t side                   # SIDE_*
    uint8_t reason                 # CLOSED_*, latched
    uint8_t spare
    uint32_t flags                 # FL_*
    int32_t err                    # errno of the first failure
    uint16_t close_code            # WebSocket close code received
    uint32_t peer                  # slot + 1 of the other end on the same loop; 0: none
    uint64_t owner                 # listener id (front) or token (back)
    params_t *params
    listener_t *listener           # front only; may be gone once FL_COUNTED is off
    codec_t codec
    buf_t rx
    buf_t tx
    buf_t hold                     # back: HELLO until the handshake is done; with FL_AWAITED the message that waits
    buf_t plain                    # an inflated batch that is being taken apart, codec.batch_left octets are left
    zip_t *zip                     # permessage-deflate; NULL: not negotiated
    realm_t *realm                 # whose session IDs are rewritten; NULL: none
    notes_t *notes                 # front: what is remembered of the link's messages; NULL: nothing
    uint64_t front_sid             # back: the session ID that the client is told; 0: the router's own
    uint64_t wait_until            # ms, when the message in hold goes on as it is; 0: none waits
    uint64_t deadline              # ms, of the phase; 0: none
    uint64_t stall_at              # ms, when queued data must have moved; 0: nothing queued
    uint64_t ping_at               # ms, next ping due, or with FL_PING_OUT the pong; 0: none
    uint64_t last_rx               # ms
    uint64_t ping_key              # payload of the ping that is out
    uint64_t due                   # ms, of the one timer; 0: not in the wheel
    uint32_t timer_prev
    uint32_t timer_next
    uint32_t timer_slot
    uint32_t ready_next            # in the ready or the late list
    uint32_t late_events           # in the late list: what epoll said of it; 0: not in it
    uint32_t join_ms               # back: deadline of the JOIN phase
    uint32_t tls_left              # octets that the present call of OpenSSL may still read
    int32_t tls_errno              # of a system call that OpenSSL asked for
    SSL *ssl                       # NULL: plain, or not begun
    const char *tls_why            # what OpenSSL gave up for; lives as long as the process
    uint8_t *address               # front: length, then the sockaddr that stands for the peer's own; NULL: its own
    size_t need                    # octets that rx must hold before its first frame is whole, as far as known

# An entry of a ring. data is owned by the entry.
ctypedef struct entry_t:
    uint8_t kind                   # EV_* or CMD_*
    uint64_t conn
    uint64_t owner                 # events: owner; commands: second connection, token or listener index
    int64_t arg
    void *params
    uint8_t *data
    size_t length
    uint8_t *data2                 # CMD_DIAL: request; points into data, not owned
    size_t length2
    uint8_t *data3                 # CMD_DIAL: hello; points into data, not owned
    size_t length3
    uint64_t arg2
    void *realm                    # CMD_DIAL: realm_t
    uint64_t front_sid             # CMD_DIAL

ctypedef struct entry_node_t:
    entry_t entry
    entry_node_t *next

# Bounded ring with an overflow list behind it, all under one mutex: never blocks, never drops, and tells when it is
# over.
ctypedef struct ring_t:
    pthread_mutex_t mutex
    entry_t *entries
    uint32_t size                  # a power of two
    uint32_t head                  # next to take
    uint32_t count
    entry_node_t *over_first
    entry_node_t *over_last
    uint64_t overflow              # atomic: entries in the list; producers are slowed down while it is not 0
    int wake_fd                    # eventfd of the consumer
    bint held                      # the consumer is woken later, once for all that is added until then

ctypedef struct chunk_t:
    conn_t conns[128]              # CHUNK_SLOTS

ctypedef struct free_buf_t:
    free_buf_t *next

# Counters of one loop; written by it alone, read racily (aligned 64-bit) by the control plane.
ctypedef struct stats_t:
    uint64_t connections
    uint64_t links
    uint64_t buffers
    uint64_t buffered_octets
    uint64_t pooled_octets
    uint64_t accepted
    uint64_t accept_errors
    uint64_t refused_full
    uint64_t dialled
    uint64_t closed
    uint64_t messages_to_back
    uint64_t messages_to_front
    uint64_t octets_to_back
    uint64_t octets_to_front
    uint64_t wakeups
    uint64_t recv_calls
    uint64_t send_calls
    uint64_t stale_events
    uint64_t violations
    uint64_t presses
    uint64_t rewritten
    uint64_t translated
    uint64_t refused
    uint64_t swallowed
    uint64_t batches
    uint64_t batched_messages
    uint64_t inflated
    uint64_t inflated_octets_in
    uint64_t inflated_octets_out
    uint64_t deflated
    uint64_t deflated_octets_in
    uint64_t deflated_octets_out
    uint64_t zip_octets
    uint64_t waits
    uint64_t tls_open
    uint64_t tls_handshakes
    uint64_t tls_resumed
    uint64_t tls_failed
    uint64_t proxy_headers
    uint64_t proxy_refused
    uint64_t tunnels

# What all loops share.
ctypedef struct relay_t:
    uint32_t threads
    int event_fd
    void *loops[64]                # LOOPS_MAX: loop_t *
    listener_t listeners[256]      # LISTENERS_MAX
    sids_t sids

# One data thread.
ctypedef struct loop_t:
    uint32_t index
    int epoll_fd
    int wake_fd
    uint64_t now                   # ms, CLOCK_MONOTONIC_COARSE, read once per wake-up
    uint64_t stop                  # atomic
    uint64_t load                  # atomic: connections here, read by loops that accept
    relay_t *relay
    chunk_t *chunks[8192]          # CHUNKS_MAX
    uint32_t chunk_count
    uint32_t free_slot             # slot + 1 of the first free connection (linked by ready_next)
    uint32_t ready_first
    uint32_t ready_last
    uint32_t late_first            # connections without a session that have to wait, so that sessions need not
    uint32_t late_last
    uint32_t late_budget           # of them, how many may still be looked at in this turn
    bint has_commands              # not all were done in the last turn
    uint32_t timers[1024]          # TIMER_SLOTS: slot + 1 of the first connection
    uint64_t timer_tick            # last tick that was worked off
    uint32_t timer_count
    uint64_t timer_hint            # no tick before this one has a timer; 0: unknown or none
    buf_t scratch                  # where most octets are received and leave from
    free_buf_t *free_bufs[19]      # BUF_CLASS_MAX + 1
    uint64_t accept_at[256]        # LISTENERS_MAX: ms when accepting is tried again; 0: not paused
    bint listening[256]            # this loop has the listener in its epoll
    bint accept_told[256]          # "paused" was told for the listener
    uint64_t accept_due            # ms, earliest of accept_at; 0: none
    ring_t commands
    ring_t events
    uint8_t keys[1024]             # KEY_POOL
    uint32_t key_pos               # next unused octet; KEY_POOL or 0 at start: draw anew
    sink_t inflated                # the message that was inflated last
    sink_t rewritten               # the message whose session IDs were rewritten last
    sink_t translated              # the message that was translated last
    sink_t batch                   # what a reading connection has for a peer that takes batches
    sink_t wrapped                 # a batch of one, or the head of a refused message
    sink_t deflated                # the message that was compressed last
    uint8_t tls_stage[16384]       # TLS_RECORD: pieces that leave in one record
    sink_t intro                   # who a client is, for the event that begins with it
    zips_t zips                    # DEFLATE streams without context
    uint64_t sweep_at              # ms, when the first loop looks for sessions to forget
    stats_t stats
