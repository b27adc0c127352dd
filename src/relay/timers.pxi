# timers.pxi - hashed timer wheel, one timer per connection. Part of proxy._relay (see src/_relay.pyx).
#
# A connection keeps several deadlines (phase, stall, ping); its one timer stands at the earliest. Nothing is re-armed
# on traffic: a timer that fires too early looks at the deadlines again and goes back into the wheel.

cdef void timer_clear(loop_t *loop, conn_t *c) noexcept nogil:
    if c.due == 0:
        return
    if c.timer_prev:
        conn_at(loop, c.timer_prev - 1).timer_next = c.timer_next
    else:
        loop.timers[c.timer_slot] = c.timer_next
    if c.timer_next:
        conn_at(loop, c.timer_next - 1).timer_prev = c.timer_prev
    c.timer_prev = 0
    c.timer_next = 0
    c.due = 0
    loop.timer_count -= 1


cdef void timer_set(loop_t *loop, conn_t *c, uint64_t due) noexcept nogil:
    """Arm the connection's timer for `due` (ms), rounded up to the next tick; an earlier one that is armed stays."""
    cdef uint64_t tick
    cdef uint32_t slot
    if c.due != 0:
        if c.due <= due:
            return
        timer_clear(loop, c)
    tick = due // TIMER_TICK_MS + 1
    if tick <= loop.timer_tick:
        tick = loop.timer_tick + 1
    slot = <uint32_t>(tick % TIMER_SLOTS)
    c.due = due if due != 0 else 1
    c.timer_slot = slot
    c.timer_prev = 0
    c.timer_next = loop.timers[slot]
    if c.timer_next:
        conn_at(loop, c.timer_next - 1).timer_prev = c.slot + 1
    loop.timers[slot] = c.slot + 1
    loop.timer_count += 1
    if loop.timer_hint == 0 or tick < loop.timer_hint:
        loop.timer_hint = tick


cdef uint64_t timer_earliest(const conn_t *c) noexcept nogil:
    """The earliest of a connection's deadlines, ms; 0: none."""
    cdef uint64_t due = c.deadline
    if c.stall_at and (due == 0 or c.stall_at < due):
        due = c.stall_at
    if c.ping_at and (due == 0 or c.ping_at < due):
        due = c.ping_at
    return due


cdef inline void timer_arm(loop_t *loop, conn_t *c) noexcept nogil:
    """To be called after a deadline was set; deadlines that were cleared need no call."""
    cdef uint64_t due = timer_earliest(c)
    if due:
        timer_set(loop, c, due)


cdef void timer_hint_find(loop_t *loop) noexcept nogil:
    """Look for the next slot in use. Called once per expiry, so that a wake-up need not search."""
    cdef uint64_t tick = loop.timer_tick + 1
    loop.timer_hint = 0
    if loop.timer_count == 0:
        return
    while loop.timers[tick % TIMER_SLOTS] == 0:
        tick += 1
    loop.timer_hint = tick


cdef int timer_wait(loop_t *loop) noexcept nogil:
    """Milliseconds until the next tick that matters; -1: none is armed."""
    cdef uint64_t due = loop.accept_due
    cdef uint64_t at
    if loop.timer_count:
        if loop.timer_hint == 0:
            timer_hint_find(loop)
        at = loop.timer_hint * TIMER_TICK_MS
        if due == 0 or at < due:
            due = at
    if due == 0:
        return -1
    return <int>(due - loop.now) + 1 if due > loop.now else 0
