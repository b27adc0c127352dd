# consts.pxi - every limit with its unit and reason, and every enumeration. Part of proxy._relay (see src/_relay.pyx).
#
# The return convention of all parts, stated once: a *verb* returns a status: < 0 failure (a value of the STATUS
# enumeration), 0 no progress (need more input, would block), > 0 progress. A *question* (is_, has_) returns bint.
# A verb that cannot fail returns void.

cdef enum:
    # --- sizes, octets ---
    BUF_HEADROOM = 64              # free octets before a scratch buffer's data: room for the largest frame header (14)
    SCRATCH_SIZE = 131072          # one per loop: a 64 KiB message and its header arrive in one recv
    STEAL_MIN = 16384              # an unfinished frame of at least this size takes the scratch with it, uncopied
    RX_MIN = 4096                  # first size of a connection's own receive buffer; doubles as octets really arrive
    READ_BUDGET = 524288           # octets read from one connection per wake-up before others get their turn
    SPAN_MAX = 64                  # pieces of one sendmsg; UIO_MAXIOV is 1024, more than 64 gain nothing
    SPAN_MERGE_MAX = 1024          # a payload up to this size is moved to close a gap, a longer one gets its own span
    HEAD_MAX = 16384               # default limit of an HTTP head; 431 above
    CONTROL_PAYLOAD_MAX = 125      # RFC 6455 5.5
    ASM_GAP_MAX = 4096             # spent octets kept inside a fragmented message; from here on they are given back
    WS_HEADER_MAX = 14             # RFC 6455 5.2: 2 + 8 + 4
    RS_HEADER_LEN = 4              # WAMP RawSocket transport: frame header and handshake
    RS_LENGTH_MAX = 16777216       # 2^24, the largest length exponent (15)
    JOIN_MESSAGE_MAX = 131072      # a client's message before it has joined: HELLO takes hundreds

    # --- scanners ---
    SCAN_DEPTH_MAX = 256           # nesting of one message; decoders of real routers stop between 100 and 1000

    # --- rings, entries ---
    EVENT_RING_SIZE = 4096
    COMMAND_RING_SIZE = 4096

    # --- timers, milliseconds ---
    TIMER_TICK_MS = 16
    TIMER_SLOTS = 1024             # one turn of the wheel is 16 s, more than most deadlines; longer ones go round again

cdef enum:                         # STATUS: all verbs
    ST_OK = 1
    ST_MORE = 0
    ST_PROTOCOL = -1               # the peer broke the framing protocol (WebSocket close 1002, RawSocket: drop)
    ST_UTF8 = -2                   # invalid UTF-8 in text or close reason (close 1007)
    ST_TOO_BIG = -3                # over max_frame_size / max_message_size (close 1009)
    ST_DATA_TYPE = -4              # text where the serializer is binary or the reverse (close 1003)
    ST_MALFORMED = -5              # scanner: not one well-formed value of the serializer
    ST_TRUNCATED = -6              # scanner: the value is cut short
    ST_TRAILING = -7               # scanner: octets after the value
    ST_DEPTH = -8                  # scanner: nested deeper than SCAN_DEPTH_MAX
    ST_AMBIGUOUS = -9              # gate: two decoders could read the message type differently
    ST_FORBIDDEN = -10             # gate: this message type may not pass in this direction
    ST_NOMEM = -11
    ST_IO = -12                    # a system call failed; errno is latched in the connection
    ST_EOF = -13

cdef enum:                         # CODEC: framing on a connection
    CODEC_NONE = 0
    CODEC_WS = 1
    CODEC_RS = 2

cdef enum:                         # CODEC flags
    CF_CLIENT = 1                  # we are the client end (backend connections): expect unmasked, send masked
    CF_REQUIRE_MASK = 2            # server end: refuse unmasked frames (require_masked_client_frames)
    CF_MASK_OUT = 4                # mask what we send (client end always; server end: mask_server_frames)
    CF_APPLY_MASK = 8              # really XOR with the key (apply_mask; off only for odd test peers)
    CF_VALIDATE_UTF8 = 16          # validate text messages
    CF_ANY_OPCODE = 32             # text and binary both accepted and kept (testee)
    CF_BATCHED = 64                # subprotocol wamp.2.*.batched: a WebSocket message holds several WAMP messages
    CF_BATCH_CAN = 128             # JSON batch: messages end with 0x18 (autobahn) instead of 0x1e (the specification)
    CF_DEFLATE = 256               # permessage-deflate was negotiated: RSV1 may be set (RFC 7692)

cdef enum:                         # SER: serializers (values of the RawSocket handshake)
    SER_NONE = 0
    SER_JSON = 1
    SER_MSGPACK = 2
    SER_CBOR = 3
    SER_UBJSON = 4                 # as autobahn writes it: BJData, little-endian
    SER_FLATBUFFERS = 5

cdef enum:                         # OP: RFC 6455 5.2 opcodes
    OP_CONT = 0
    OP_TEXT = 1
    OP_BINARY = 2
    OP_CLOSE = 8
    OP_PING = 9
    OP_PONG = 10
    OP_RSV1 = 0x40                 # added to the opcode of a compressed message's first frame

cdef enum:                         # FRAME: what frame_next found
    FRAME_NONE = 0                 # a fragment was absorbed (or a control frame that needs nothing)
    FRAME_MESSAGE = 1              # one whole message
    FRAME_PING = 2
    FRAME_PONG = 3
    FRAME_CLOSE = 4                # WebSocket only

cdef enum:                         # WAMP: message types that the relay itself deals with (WAMP spec, "Message Codes")
    WAMP_WELCOME = 2
    WAMP_ERROR = 8
    WAMP_PUBLISH = 16
    WAMP_SUBSCRIBE = 32
    WAMP_SUBSCRIBED = 33
    WAMP_UNSUBSCRIBE = 34
    WAMP_UNSUBSCRIBED = 35
    WAMP_EVENT = 36
    WAMP_CALL = 48
    WAMP_RESULT = 50
    WAMP_INVOCATION = 68
    WAMP_YIELD = 70

cdef enum:                         # DIR: direction of a message
    DIR_TO_BACK = 0                # client to router
    DIR_TO_FRONT = 1               # router to client

cdef enum:                         # PLAN: what the gate wants done with a message
    PLAN_PASS = 1                  # relay it untouched
    PLAN_CONTROL = 2               # the control plane's business (GOODBYE; ABORT from the router)
    # < 0: a violation, one of ST_MALFORMED .. ST_FORBIDDEN

cdef enum:                         # more limits of the connection layer
    BROKEN_READS_MAX = 16          # times READ_BUDGET: what is read from a connection that can send no more
    ACCEPT_BURST = 16              # connections accepted per wake-up before others get their turn
    ACCEPT_RETRY_MS = 250          # pause after accept() ran out of descriptors or memory
    CONNECT_RETRY_MS = 4           # a Unix socket whose backlog is full answers EAGAIN and signals nothing: ask again
    LISTEN_FULL_EVENT_MS = 10000   # at most one "full" event per listener and this time
    EPOLL_BATCH = 256
    COMMAND_BURST = 16             # commands done per turn of the loop before the sessions get theirs
    LATE_BURST = 8                 # connections without a session looked at per turn; closing one takes long
    LISTENERS_MAX = 256
    LOOPS_MAX = 64
    CHUNK_SLOTS = 128              # connections are allocated in chunks of this many
    CHUNKS_MAX = 8192              # so at most 2^20 connections per loop
    BUF_CLASS_MIN = 12             # smallest pooled buffer: 4 KiB
    BUF_CLASS_MAX = 18             # largest pooled buffer: 256 KiB; larger ones go back to the system at once
    POOL_BYTES_MAX = 8388608       # octets of free buffers that one loop keeps
    TLS_RECORD = 16384             # octets of one record's data (RFC 8446 section 5.1)
    TLS_READ_MAX = 32768           # octets that one read takes for anything but data: a full record, or key updates
    TLS_OVERHEAD = 22              # octets of a record besides its data, at least
    INTRO_FIELD_MAX = 255          # octets of a field of an introduction's TLS block, but for the certificate's
    INTRO_CERTIFICATE_MAX = 63488  # so that the whole block's length fits into 16 bits
    PROXY_HEADER_MAX = 4096        # octets of a PROXY protocol header: version 2 allows 64 KiB of notes that we skip
    NETWORKS_MAX = 1024            # of one listener from which that protocol is expected
    KEY_POOL = 1024                # octets of masking keys drawn from the kernel at a time
    HANDSHAKE_DROPPED = 1000       # EV_CLOSED's errno: dropped during the handshake; 1000 + n: error octet n
    ORPHAN_MS = 30000              # a connection nobody answers for is closed after this time

cdef enum:
    ST_DEADLINE = -14
    ST_UNTRANSLATABLE = -15        # translation: a value that the other serializer cannot express
    ST_WAIT = -16                  # rewriter: names a session whose WELCOME has not been read yet
    ST_BUSY = -17                  # more to remember of pending requests than NOTES_MAX

cdef enum:                         # NOTE: what is remembered of a link's messages
    NOTE_CALL = 1                  # a CALL whose RESULT holds session IDs; rule says where
    NOTE_SUBSCRIBE = 2             # a SUBSCRIBE to a topic whose events hold session IDs
    NOTE_SUBSCRIPTION = 3          # the subscription that came of it
    NOTE_DEAD_CALL = 4             # the client was told that this call failed: its further answers are dropped
    NOTE_DEAD_INVOCATION = 5       # the router was told that this invocation failed: its further answers are dropped
    NOTE_UNSUBSCRIBE = 6           # an UNSUBSCRIBE of such a subscription, which note_t.other names

cdef enum:                         # more limits, of what happens to messages between reading and sending
    NOTES_MAX = 1024               # notes of one link; a client with more of those calls pending is told to wait
    SID_SHARDS = 64                # parts of the session-ID map, each with its own lock
    SID_LINGER_MS = 60000          # how long an ended session's IDs are still known: its on_leave is under way
    SID_LINGERERS_MAX = 65536      # ended sessions that are still known, in the worker
    SID_WAIT_MS = 200              # how long an on_join event waits for the WELCOME of a session it names
    SID_SWEEP_MS = 1000            # how often ended sessions are looked for
    SID_SEGMENT = 64               # buckets of the map that are allocated together
    SID_SWEEP_MAX = 1024           # ended sessions forgotten by one call, so that none takes long
    REALMS_MAX = 65536
    REALM_CHUNK = 256              # realms are allocated in chunks of this many
    SINK_KEEP = 1048576            # octets of memory that a sink keeps from one message to the next
    BATCH_MAX = 65536              # octets of a batch towards a client, unless one message alone is longer
    DEFLATE_MIN = 32               # shorter messages are sent as they are
    ZIP_LEVEL = 6                  # zlib's default, and that of the other implementations

cdef enum:                         # TRANSLATE: limits of the translation, octets
    TRANSLATE_ROOM = 48            # made before each value: separator, head or scalar of any kind, or a short text
    TRANSLATE_SLACK = 64           # more than TRANSLATE_ROOM: what the sink may hold over its limit while it is written
    TRANSLATE_MOVES = 8            # octets moved to widen heads, per octet of the message; then heads are wide at once

cdef enum:                         # SIDE
    SIDE_FRONT = 0
    SIDE_BACK = 1

cdef enum:                         # PHASE of a connection, in the order they are passed
    PHASE_FREE = 0
    PHASE_CONNECT = 1              # back: connect() is under way
    PHASE_PROXY = 2                # front: a PROXY protocol header is awaited
    PHASE_TLS = 3                  # TLS handshake
    PHASE_SNIFF = 4                # front: nothing received yet
    PHASE_RS_HELLO = 5             # four octets of RawSocket handshake are awaited
    PHASE_HEAD = 6                 # an HTTP head is gathered
    PHASE_WAIT = 7                 # the head is with the control plane
    PHASE_JOIN = 8                 # messages go up one at a time
    PHASE_LINKED = 9
    PHASE_TUNNEL = 10              # raw octets to and from a socket of the control plane
    PHASE_CLOSING = 11             # flush, close handshake, then shut down
    PHASE_LINGER = 12              # our end is shut down, the peer's last octets are read and dropped

cdef enum:                         # FL: flags of a connection
    FL_RD_READY = 1                # edge-triggered: the socket may have something to read
    FL_EOF_HINT = 2                # the peer's end is shut down: a short read is not the end, read until 0
    FL_WR_BLOCKED = 4              # the last send was short: EPOLLOUT is armed
    FL_PAUSED = 8                  # the control plane has something to decide first
    FL_PRESSED = 16                # the peer's queue is over high water
    FL_READY = 32                  # in the loop's ready list, or with late_events in the late list
    FL_KNOWN = 64                  # an event named this connection, so its end must be told
    FL_REPORTED = 128              # EV_CLOSED is out: the control plane knows it no more
    FL_CLOSE_SENT = 256            # WebSocket close frame queued
    FL_CLOSE_SEEN = 512            # WebSocket close frame received
    FL_PING_OUT = 1024             # a pong is awaited
    FL_LINKED_BACK = 2048          # back: was linked once, so the control plane says when it ends
    FL_CONNECT_RETRY = 4096
    FL_NO_READ = 8192              # nothing more is read from this connection (violation)
    FL_COUNTED = 16384             # counts towards its listener's max_connections
    FL_FLOODED = 32768             # the own queue is over high water with answers (pongs) that are not fetched
    FL_COOKED = 65536              # linked: its messages cannot be re-framed where they lie, each is written anew
    FL_AWAITED = 131072            # a message in hold waits for the session that it names (ST_WAIT)
    FL_JOINING = 262144            # back: counted in its realm's `joining`
    FL_REFUSED = 524288            # paused because of a message that cannot be relayed (EV_REFUSED)
    FL_TLS_DRY = 1048576           # the socket has nothing more to read for TLS
    FL_TLS_EOF = 2097152           # it has ended, while OpenSSL wanted more
    FL_TLS_DEAD = 4194304          # OpenSSL has given up on the connection
    FL_TLS_MORE = 8388608          # TLS records without data took their share of this turn, there may be more
    FL_TLS_UNVERIFIED = 16777216   # tls_why is about the certificate
    FL_ENDING = 33554432           # tunnel: our end is to be shut down once all is sent
    FL_HUNG = 67108864             # tunnel: the other end of the control plane's socket is closed
    FL_TLS_MUTE = 134217728        # the socket takes nothing more from TLS; what it has may still be read
    FL_SILENT = 268435456           # tunnel: the control plane's own end, nothing is told of it
    FL_STOPPED = FL_PAUSED | FL_PRESSED | FL_NO_READ | FL_FLOODED | FL_AWAITED  # any reason not to read

cdef enum:                         # CLOSED: why a connection ended, first reason wins
    CLOSED_NONE = 0
    CLOSED_PEER = 1
    CLOSED_LOCAL = 2
    CLOSED_RESET = 3
    CLOSED_DEADLINE = 4
    CLOSED_STALL = 5
    CLOSED_PING = 6
    CLOSED_PROTOCOL = 7
    CLOSED_TOO_BIG = 8
    CLOSED_REFUSED = 9
    CLOSED_NOMEM = 10
    CLOSED_FRONT_GONE = 11
    CLOSED_TLS = 12                # handshake or record failed; the end's text says why

cdef enum:                         # EV: events to the control plane
    EV_HEAD = 1
    EV_OPEN = 2
    EV_MESSAGE = 3
    EV_CONTROL = 4
    EV_VIOLATION = 5
    EV_CLOSED = 6
    EV_LISTEN = 7
    EV_REFUSED = 8
    EV_RAW = 9

cdef enum:                         # LISTEN: states of a listener in EV_LISTEN
    LISTEN_PAUSED = 1
    LISTEN_RESUMED = 2
    LISTEN_FULL = 3
    LISTEN_CLOSED = 4

cdef enum:                         # CMD: commands to a loop
    CMD_LISTEN = 1
    CMD_UNLISTEN = 2
    CMD_ADOPT = 3                  # from another loop: a connection it accepted
    CMD_UPGRADE = 4
    CMD_REPLY = 5
    CMD_SEND = 6
    CMD_NEXT = 7
    CMD_DIAL = 8
    CMD_UNDIAL = 9
    CMD_LINK = 10
    CMD_LINK_SELF = 11
    CMD_UNLINK = 12
    CMD_CLOSE = 13
    CMD_ABORT = 14
    CMD_SWALLOW = 15
    CMD_TUNNEL = 16

cdef extern from *:
    """
    #define SID_MAX 9007199254740992ULL      /* 2^53, the largest ID (WAMP spec, section "IDs") */
    """
    const uint64_t SID_MAX

cdef enum:                         # limits of the field cursor
    FIELDS_UINT_MAX = 20           # octets of an integer, in any serializer
    FIELDS_TEXT_MAX = 64           # octets of a text that may need spelling; our longest key or URI has 36

# Elements of a container that tells its end by an octet behind the last one.
cdef extern from *:
    """
    #define ITEM_OPEN 0xffffffffffffffffULL
    """
    const uint64_t ITEM_OPEN

cdef enum:                         # ITEM: what a field cursor met
    ITEM_OTHER = 0                 # passed over whole, of no interest here
    ITEM_UINT = 1                  # an integer from 0 to 2^64 - 1
    ITEM_TRUE = 2
    ITEM_TEXT = 3
    ITEM_ARRAY = 4                 # from here on only the head was read
    ITEM_MAP = 5
    ITEM_WRAPPED = 6               # a CBOR tag

cdef enum:                         # KEY: bit set of the keys under which a message or its payload has session IDs
    KEY_EXCLUDE = 1
    KEY_ELIGIBLE = 2
    KEY_PUBLISHER = 4
    KEY_CALLER = 8
    KEY_CALLEE = 16
    KEY_FORWARD_FOR = 32
    KEY_SESSION = 64
    KEY_SESSION_ID = 128
    KEY_CREATOR = 256
    KEY_CALLEE_ID = 512
    KEY_SUBSCRIBER_ID = 1024
    KEY_PUBLISH_OPTIONS = 2048
    KEY_DETAILS = 4096
    KEY_TOPIC = 8192               # no session ID, but what says where they are in an event's payload
    KEY_PROGRESS = 16384
    KEY_SUBSCRIPTION = 32768
    KEY_ONE = 2012                 # keys of one ID: publisher to callee and session to subscriber_id
    KEY_LIST = 3                   # keys of a list of IDs: exclude, eligible

cdef enum:                         # WHERE: what session IDs to expect in one argument
    WHERE_NONE = 0
    WHERE_ID = 1                   # an ID, or a dictionary of details
    WHERE_DETAILS = 2              # a dictionary of details; a number is something else
    WHERE_LIST = 3                 # a list of IDs or of dictionaries of details; a number is a count
    WHERE_OPTIONS = 4              # the Options of a PUBLISH

cdef enum:                         # RULE: WHERE of the first four arguments, three bits each, and a flag
    RULE_NONE = 0
    RULE_FIRST = 1                 # WHERE_ID of argument 0
    RULE_DETAILS = 2               # WHERE_DETAILS of argument 0
    RULE_LIST = 3                  # WHERE_LIST of argument 0
    RULE_SECOND = 8                # WHERE_ID of argument 1
    RULE_EVENT = 17                # WHERE_ID of argument 0, WHERE_DETAILS of argument 1
    RULE_TESTAMENT = 2048          # WHERE_OPTIONS of argument 3
    RULE_WAITS = 32768             # the session may be one whose WELCOME has not been read yet
    RULE_JOIN = 32769              # RULE_FIRST, RULE_WAITS
