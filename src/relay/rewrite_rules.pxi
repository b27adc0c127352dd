# rewrite_rules.pxi - where session IDs are: by message type, by key, and by URI of a router's meta API. Part of
# proxy._relay (see src/_relay.pyx).
#
# Sources: the WAMP specification (advanced profile: meta API, testament, event history), and what Crossbar.io adds
# (wamp.session.on_stats, list(session_id), remove_callee, remove_subscriber) and nexus (modify_details).

cdef extern from *:
    """
    /* Keys of the Options or Details that are looked at, by direction (to the router, to the client) and type. */
    static const unsigned short rewrite_keys[2][71] = {
        {
            [8] = 16 + 32, [16] = 1 + 2 + 32, [32] = 32, [34] = 32, [48] = 8 + 32, [49] = 32, [64] = 32, [66] = 32,
            [70] = 16 + 32,
        },
        {
            [8] = 16 + 32, [35] = 32768, [36] = 4 + 32 + 8192, [50] = 16 + 32 + 16384, [68] = 8 + 32, [69] = 32,
        },
    };
    /* Types that may hold a session ID or that a note depends on, by direction. */
    static const unsigned char rewrite_types[2][71] = {
        {[8] = 1, [16] = 1, [32] = 1, [34] = 1, [48] = 1, [49] = 1, [64] = 1, [66] = 1, [70] = 1},
        {[8] = 1, [33] = 1, [35] = 1, [36] = 1, [50] = 1, [68] = 1, [69] = 1},
    };

    /* What the arguments of a call of this procedure, and those of its result, hold: RULE_*. */
    typedef struct { const char *uri; unsigned char length; unsigned short call, result; } rewrite_procedure_t;
    #define REWRITE_PROCEDURE(uri, call, result) {uri, sizeof(uri) - 1, call, result}
    #define REWRITE_PROCEDURES 17
    static const rewrite_procedure_t rewrite_procedures[REWRITE_PROCEDURES] = {
        REWRITE_PROCEDURE("wamp.session.list", 0, 3),
        REWRITE_PROCEDURE("wamp.session.get", 1, 2),
        REWRITE_PROCEDURE("wamp.session.kill", 1, 0),
        REWRITE_PROCEDURE("wamp.session.kill_by_authid", 0, 3),
        REWRITE_PROCEDURE("wamp.session.kill_by_authrole", 0, 3),
        REWRITE_PROCEDURE("wamp.session.kill_all", 0, 3),
        REWRITE_PROCEDURE("wamp.session.modify_details", 1, 2),
        REWRITE_PROCEDURE("wamp.session.add_testament", 4 << 9, 0),
        REWRITE_PROCEDURE("wamp.registration.list", 1, 0),
        REWRITE_PROCEDURE("wamp.registration.get", 0, 2),
        REWRITE_PROCEDURE("wamp.registration.list_callees", 0, 3),
        REWRITE_PROCEDURE("wamp.registration.remove_callee", 1 << 3, 0),
        REWRITE_PROCEDURE("wamp.subscription.list", 1, 0),
        REWRITE_PROCEDURE("wamp.subscription.get", 0, 2),
        REWRITE_PROCEDURE("wamp.subscription.list_subscribers", 0, 3),
        REWRITE_PROCEDURE("wamp.subscription.remove_subscriber", 1 << 3, 0),
        REWRITE_PROCEDURE("wamp.subscription.get_events", 0, 3),
    };
    """
    ctypedef struct rewrite_procedure_t:
        const char *uri
        uint8_t length
        uint16_t call
        uint16_t result
    enum:
        REWRITE_PROCEDURES
    const rewrite_procedure_t *rewrite_procedures
    const uint16_t (*rewrite_keys)[71]
    const uint8_t (*rewrite_types)[71]


cdef inline bint rewrite_concerns(uint8_t direction, uint32_t type) noexcept nogil:
    """May a message of this type hold session IDs, or does a note depend on it?"""
    return type < WAMP_TABLE_SIZE and rewrite_types[direction == DIR_TO_FRONT][type]


cdef inline bint rewrite_is(const uint8_t *text, size_t n, const char *known, size_t k) noexcept nogil:
    """Is the text the known one of k octets?"""
    return n == k and memcmp(text, known, k) == 0


cdef inline bint rewrite_is_meta(const uint8_t *uri, size_t n) noexcept nogil:
    """Is this a URI of the router's own?"""
    return n > 5 and memcmp(uri, b"wamp.", 5) == 0


cdef const rewrite_procedure_t *rewrite_procedure(const uint8_t *uri, size_t n) noexcept nogil:
    """The procedure of the meta API with session IDs in its arguments or results; NULL: it is none."""
    cdef int i
    if not rewrite_is_meta(uri, n):
        return NULL
    for i in range(REWRITE_PROCEDURES):
        if rewrite_is(uri, n, rewrite_procedures[i].uri, rewrite_procedures[i].length):
            return &rewrite_procedures[i]
    return NULL


cdef uint16_t rewrite_topic(const uint8_t *uri, size_t n) noexcept nogil:
    """RULE_* of the events of a topic."""
    if not rewrite_is_meta(uri, n):
        return RULE_NONE
    if rewrite_is(uri, n, b"wamp.session.on_join", 20):
        return RULE_JOIN
    if rewrite_is(uri, n, b"wamp.session.on_leave", 21) or rewrite_is(uri, n, b"wamp.session.on_stats", 21):
        return RULE_FIRST
    if n > 21 and memcmp(uri, b"wamp.subscription.on_", 21) == 0:
        return RULE_EVENT
    if n > 21 and memcmp(uri, b"wamp.registration.on_", 21) == 0:
        return RULE_EVENT
    return RULE_NONE


cdef inline uint32_t rewrite_key(const uint8_t *text, size_t n) noexcept nogil:
    """KEY_* of a key; 0: none of ours."""
    if n == 5:
        return KEY_TOPIC if memcmp(text, b"topic", 5) == 0 else 0
    if n == 6:
        return KEY_CALLER if memcmp(text, b"caller", 6) == 0 else KEY_CALLEE if memcmp(text, b"callee", 6) == 0 else 0
    if n == 7:
        return (KEY_EXCLUDE if memcmp(text, b"exclude", 7) == 0 else KEY_SESSION if memcmp(text, b"session", 7) == 0
                else KEY_CREATOR if memcmp(text, b"creator", 7) == 0
                else KEY_DETAILS if memcmp(text, b"details", 7) == 0 else 0)
    if n == 8:
        return (KEY_ELIGIBLE if memcmp(text, b"eligible", 8) == 0
                else KEY_PROGRESS if memcmp(text, b"progress", 8) == 0 else 0)
    if n == 9:
        return (KEY_PUBLISHER if memcmp(text, b"publisher", 9) == 0
                else KEY_CALLEE_ID if memcmp(text, b"callee_id", 9) == 0 else 0)
    if n == 10:
        return KEY_SESSION_ID if memcmp(text, b"session_id", 10) == 0 else 0
    if n == 11:
        return KEY_FORWARD_FOR if memcmp(text, b"forward_for", 11) == 0 else 0
    if n == 12:
        return KEY_SUBSCRIPTION if memcmp(text, b"subscription", 12) == 0 else 0
    if n == 13:
        return KEY_SUBSCRIBER_ID if memcmp(text, b"subscriber_id", 13) == 0 else 0
    if n == 15:
        return KEY_PUBLISH_OPTIONS if memcmp(text, b"publish_options", 15) == 0 else 0
    return 0
