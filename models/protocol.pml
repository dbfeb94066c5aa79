/* The lock protocol, outside the code: who may hold a key, wait for it, take it away, write.
 *
 * One atomic step stands for one compare-exchange of a hold's word or for one section under an
 * entry's mutex; between two steps anything may happen. Steps have the names of functions in src/.
 * README.md says what is left out and what the promises mean.
 *
 * Variants
 *   AGAIN      caller 0 calls twice
 *   TWO_KEYS   caller 0 takes both keys, caller 1 both or one, caller 2 one
 *   ON_WORKER  caller 0 runs a callback on a worker
 *   FORCED     somebody force releases a key
 *   LOOKED     somebody looks who holds a key; not beside TWO_KEYS or FORCED
 *   STOPS      a caller may stop for ever at any step, not only while it holds a guard
 *   FINITE     one commit or extension in all, so that every run must end
 *   CALLERS=2  caller 2 stays away
 * Every other macro plants a mistake; scripts/test-protocol.sh says which promise it must break.
 */

#ifndef CALLERS
#define CALLERS 3
#endif
#define SEATS   3
#define KEYS    2
#define HOLDS   4 /* one a call: the callers' first, and caller 0's second */
#define NOBODY  7
#define NO_KEY  7

/* Parties: callers, the worker, the forcer. A party's number is that of its process. */
#define PARTIES 5
#define WORKER  3
#ifdef ON_WORKER
#define THREADS 4
#else
#define THREADS 3
#endif
#define FORCER  THREADS
#define me      _pid

/* A failed assertion begins with the name of the promise. */
#define promise(name, condition) assert(name || (condition))
hidden byte exclusion, no_late_write, no_stale_release, no_late_grant, no_lost_waiter,
            granted_extension, token_order, no_stray_entry, every_call_ends;

mtype = { TAKING, OPEN, COMMITTING, ENDED, EXPIRED, REVOKED };  /* a hold */
mtype = { UNDECIDED, UNENDING, IN_TIME, LATE, OVERDUE };        /* where a clock stands */
mtype = { WAITING, GRANTED, LEFT, TOLD };                       /* a waiter's fate */
mtype = { TAKEN, BUSY, DEAD };                                  /* what came of asking */

/* The next step of a party. */
mtype = { IDLE, FIND, LIST, LISTING, ARRIVE, JOIN, REGISTER, IN_FORCE, CHECK, LOOK, REST, LEAVE,
          GIVE_UP, DRAW, SET_LOCKS, OPEN_ALL, HOLDER_OPENED, USE, EXTEND, COMMIT, PUBLISH, FINISH,
          PUBLISH_LAST, LET_GO, RELEASE, PAY, GONE, START, ATTEND, AWAIT, EXPIRE, GRACE, FORCE,
          REVOKE, SEARCH, EXPEL, TELL, RELEASE_ALL };

/* Holds. */
mtype word[HOLDS] = TAKING;
mtype time[HOLDS] = UNENDING;
byte first[HOLDS];
byte last[HOLDS];
byte granted[HOLDS]; /* a bit a key */
bool locks_set[HOLDS];
bool taken_away[HOLDS];
bool undrawn[HOLDS];  /* it has its lock, and no token yet */
bool outdrawn[HOLDS]; /* a successor has drawn one meanwhile */

/* Entries. A dead one is not listed; who had found it before knows it by `stale`. */
bool listed[KEYS];
bool sole[KEYS];    /* held, and no entry is there */
bool listing[KEYS]; /* somebody is making one */
byte holder[KEYS] = NOBODY;
chan queue[KEYS] = [SEATS] of { byte };
byte found[SEATS] = NO_KEY;
bool stale[SEATS];
bool kept[KEYS];   /* idle, and at hand for the next call of whoever gave it back */
bool looked[KEYS]; /* claimed by one who only looks, and has its mutex */

/* Who finds it claimed waits for the mutex. */
#ifdef LOOKED
#define may_enter(k) !looked[k]
#else
#define may_enter(k) true
#endif

/* Waiters. */
mtype fate[SEATS] = LEFT;
mtype by[SEATS] = UNDECIDED; /* the wait deadline */
bool planned[SEATS];         /* to look again at the holder's release time, not only when woken */
bool token[SEATS];           /* unparked */
bool registered[SEATS];

/* Parties. What a party owes it pays after it has let go of the mutex. */
mtype at[PARTIES] = IDLE;
mtype then[PARTIES] = IDLE;
byte hold[PARTIES] = NOBODY;
byte key[PARTIES];
byte owes_wake[PARTIES] = NOBODY;
byte owes_watch[PARTIES] = NOBODY;
byte owes_evict[PARTIES] = NO_KEY;
byte owes_evicted[PARTIES] = NOBODY;
#ifdef DECIDED_ON_A_SECOND_LOOK
bool met_claimer[PARTIES];
#endif

#ifdef FINITE
bool prolonged;
#endif

/* Only the waiter of a hold that has a key already can be told that it lost it. */
#if defined(TWO_KEYS) && defined(FORCED)
#define CAN_BE_TOLD
#endif

#define has_finished(h) (at[WORKER] == GONE && word[h] == ENDED)
#define calls(c) (c < CALLERS)
#define my_hold hold[me]
#define my_key  key[me]

/* ---- src/lock/hold.rs ---- */

#define in_force(h) (word[h] == TAKING || word[h] == OPEN || word[h] == COMMITTING)
#define in_time(h)  (word[h] == OPEN && !is_late(h))
#define is_late(h)  (time[h] == LATE || time[h] == OVERDUE)
#define is_lost(h)  (word[h] == EXPIRED || word[h] == REVOKED)
#define has_release_time(h) ((word[h] == OPEN || word[h] == COMMITTING) && time[h] != UNENDING)

#define has_all(h)   (granted[h] == (1 << first[h] | 1 << last[h]))
#define is_single(h) (first[h] == last[h])

inline open(h) {
    if
    :: word[h] == TAKING ->
        word[h] = OPEN;
        if
        :: time[h] = IN_TIME
        :: time[h] = UNENDING
        fi
    :: else
    fi
}

inline end(h) {
    word[h] = ENDED;
    time[h] = UNENDING
}

/* With wake_watchers: the caller that attends to its callback. */
inline take_away(h, to) {
    word[h] = to;
    time[h] = UNENDING;
    taken_away[h] = true;
#if defined(ON_WORKER) && !defined(REVOKE_UNWATCHED)
    if
    :: h == 0 && (at[0] == ATTEND || at[0] == AWAIT || at[0] == EXPIRE || at[0] == GRACE) ->
        token[0] = true
    :: else
    fi
#endif
}

#ifdef TAKE_AWAY_DURING_COMMIT
#define may_be_taken(h) (word[h] == OPEN || word[h] == COMMITTING)
#else
#define may_be_taken(h) (word[h] == OPEN)
#endif

/* ---- src/lock/entry.rs ---- */

#define strict(c)        (c == 2)
#define strict_queued(k) (queue[k]??[2])
#define is_head(k, c)    (queue[k]?[c])

#define also_held_by(h, k, g) (g != h && in_force(g) && (granted[g] >> k & 1))
#define also_held(h, k) (also_held_by(h, k, 0) || also_held_by(h, k, 1) || \
                         also_held_by(h, k, 2) || also_held_by(h, k, 3))

inline grant(h, k) {
    promise(exclusion, !also_held(h, k));
    holder[k] = h;
    kept[k] = false;
    granted[h] = granted[h] | (1 << k)
}

/* src/lock/tokens.rs: a number that is larger than those before. */
#define falls_behind(h, k, g) \
    outdrawn[g] = outdrawn[g] || g != h && undrawn[g] && (granted[g] >> k & 1)
inline draw(h, k) {
    falls_behind(h, k, 0);
    falls_behind(h, k, 1);
    falls_behind(h, k, 2);
    falls_behind(h, k, 3)
}

inline hand_to(h, k) {
    grant(h, k);
    if
    :: is_single(h) -> draw(h, k); open(h)
    :: else
    fi
}

/* By the word alone. Nobody else knows the hold, so it may be open before; the token comes later. */
inline take(h, k) {
    grant(h, k);
    if
    :: is_single(h) -> open(h); undrawn[h] = true
    :: else
    fi
}

/* Of two release times it is enough to know that the head wakes at the earlier one by itself. */
#ifdef HEAD_NOT_WATCHED
#define must_look(h, c) false
#else
#define must_look(h, c) (has_release_time(h) && !planned[c])
#endif

inline watch(k) {
    if
    :: holder[k] != NOBODY && len(queue[k]) > 0 ->
        queue[k]?<head>;
        if
        :: must_look(holder[k], head) -> owes_watch[me] = head
        :: else
        fi;
        head = 0
    :: else
    fi
}

/* A strict waiter, or two milliseconds as head. */
inline must_hand_over(k) {
    if
    :: must = true
    :: !strict_queued(k) -> must = false
    fi
}

inline pass_on(k) {
    queue[k]?<head>;
    owes_wake[me] = head;
    if
    :: must ->
        queue[k]?_;
        promise(no_late_grant, fate[head] == WAITING);
        hand_to(hold[head], k);
        fate[head] = GRANTED;
        watch(k)
    :: else
    fi;
    must = false;
    head = 0
}

inline evict_overdue(k) {
    if
    :: holder[k] == NOBODY
    :: else ->
        evicted = may_be_taken(holder[k]) && time[holder[k]] == OVERDUE;
        if
        :: evicted ->
#ifndef EVICT_WITHOUT_STEP
            take_away(holder[k], EXPIRED);
#endif
#ifndef EVICT_ONE_KEY
            owes_evicted[me] = (is_single(holder[k]) -> NOBODY : holder[k]);
#endif
            holder[k] = NOBODY
        :: else
        fi
    fi
}

inline die(k) {
    listed[k] = false;
    stale[0] = stale[0] || found[0] == k;
    stale[1] = stale[1] || found[1] == k;
    stale[2] = stale[2] || found[2] == k
}

inline arrive(k) {
    if
#ifdef DEAD_ENTRY_TAKEN
    :: stale[me] -> turn = TAKEN; take(my_hold, k)
#else
    :: stale[me] -> turn = DEAD
#endif
    :: else ->
        evict_overdue(k);
        if
        :: holder[k] != NOBODY -> turn = BUSY
        :: holder[k] == NOBODY && len(queue[k]) == 0 -> turn = TAKEN
        :: holder[k] == NOBODY && len(queue[k]) > 0 ->
            must_hand_over(k);
            turn = (strict(me) || strict_queued(k) || evicted && must -> BUSY : TAKEN)
        fi;
        if
        :: turn == TAKEN && len(queue[k]) == 0 -> take(my_hold, k)
        :: turn == TAKEN && len(queue[k]) > 0 -> must = false; hand_to(my_hold, k); watch(k)
        :: turn == BUSY && holder[k] == NOBODY -> pass_on(k)
        :: else
        fi;
        evicted = false
    fi
}

inline next_look(k) {
    if
    :: holder[k] == NOBODY -> planned[me] = false
    :: else -> planned[me] = has_release_time(holder[k])
    fi
}

/* After it arrived in vain. */
inline join(k) {
    next_look(k);
    queue[k]!me;
    fate[me] = WAITING;
    found[me] = NO_KEY
}

inline look(k) {
    turn = BUSY;
    planned[me] = false;
    if
    :: fate[me] == WAITING && is_head(k, eval(me)) ->
#ifndef OVERDUE_LEFT
        evict_overdue(k);
        evicted = false;
#endif
        if
        :: holder[k] == NOBODY ->
            queue[k]?_;
            hand_to(my_hold, k);
            fate[me] = GRANTED;
            watch(k);
            turn = TAKEN
        :: else -> next_look(k)
        fi
    :: else
    fi
}

inline leave(c, k, why) {
    left = (fate[c] == WAITING);
    if
    :: left ->
#ifndef LEFT_STAYS_QUEUED
        queue[k]??eval(c);
#endif
        fate[c] = why;
        if
        :: holder[k] != NOBODY -> watch(k)
        :: holder[k] == NOBODY && len(queue[k]) == 0 -> die(k)
#ifdef LEAVE_WITHOUT_WAKE
        :: else
#else
        :: else -> must_hand_over(k); pass_on(k)
#endif
        fi
    :: else
    fi
}

/* Who has no entry frees the key where it stands; not while somebody makes an entry of it. */
#ifdef LISTING_IGNORED
#define may_release(h, k) true
#else
#define may_release(h, k) (!listing[k] || holder[k] != h)
#endif

inline release(h, k) {
    if
    :: sole[k] && holder[k] == h ->
        sole[k] = false;
#ifdef LISTING_IGNORED
        if
        :: listing[k]
        :: else -> holder[k] = NOBODY
        fi
#else
        holder[k] = NOBODY
#endif
    :: else ->
    if
#ifdef RELEASE_UNCHECKED
    :: holder[k] != NOBODY ->
#else
    :: holder[k] == h ->
#endif
        promise(no_stale_release, !in_force(holder[k]));
        holder[k] = NOBODY;
        if
        :: len(queue[k]) == 0 ->
            /* Kept for the next call, or not. */
            if
            :: owes_evict[me] = k
            :: kept[k] = true
            fi
#ifdef RELEASE_WITHOUT_WAKE
        :: else
#else
        :: else -> must_hand_over(k); pass_on(k)
#endif
        fi
    :: else
    fi
    fi
}

/* The word's exchange; if it met a claimer, under the mutex. */
#ifdef DECIDED_ON_A_SECOND_LOOK
#define may_evict(k) (!looked[k] || !met_claimer[me])
inline evict(k) {
    if
    :: looked[k] -> met_claimer[me] = true
    :: !looked[k] && met_claimer[me] -> met_claimer[me] = false; owes_evict[me] = NO_KEY
    :: else -> evict_idle(k)
    fi
}
#else
#define may_evict(k) may_enter(k)
inline evict(k) { evict_idle(k) }
#endif

inline evict_idle(k) {
    if
    :: listed[k] && holder[k] == NOBODY && len(queue[k]) == 0 -> die(k)
    :: else
    fi;
    owes_evict[me] = NO_KEY
}

/* ---- src/lock/lock_table.rs ---- */

#define owes (owes_wake[me] != NOBODY || owes_watch[me] != NOBODY || \
              owes_evict[me] != NO_KEY || owes_evicted[me] != NOBODY)
#define may_pay (owes_evict[me] == NO_KEY || may_evict(owes_evict[me]))

inline settle(next) {
    if
    :: owes -> then[me] = next; at[me] = PAY
    :: else -> at[me] = next; then[me] = IDLE
    fi
}

/* One debt at a time. */
inline pay() {
    if
    :: owes_wake[me] != NOBODY ->
        token[owes_wake[me]] = at[owes_wake[me]] != GONE;
        owes_wake[me] = NOBODY
    :: owes_wake[me] == NOBODY && owes_watch[me] != NOBODY ->
        token[owes_watch[me]] = at[owes_watch[me]] != GONE;
        owes_watch[me] = NOBODY
    :: owes_wake[me] == NOBODY && owes_watch[me] == NOBODY && owes_evict[me] != NO_KEY ->
        evict(owes_evict[me])
#ifdef TWO_KEYS
    :: else ->
        /* One of its two keys it has lost already. */
        if
        :: holder[0] == owes_evicted[me] -> release(owes_evicted[me], 0)
        :: else -> release(owes_evicted[me], 1)
        fi;
        owes_evicted[me] = NOBODY
#endif
    fi;
    settle(then[me])
}

inline begin_call() {
    my_hold = (my_hold == NOBODY -> me : 3);
#ifdef TWO_KEYS
    if
    :: me != 2 -> last[my_hold] = 1
    :: me != 0
    :: me != 0 -> first[my_hold] = 1; last[my_hold] = 1
    fi;
#ifdef KEYS_OUT_OF_ORDER
    my_key = (me == 1 -> last[my_hold] : first[my_hold])
#else
    my_key = first[my_hold]
#endif
#endif
}

/* Finding nothing and taking the place are one step: if another one came between, this would find
 * that. */
inline attempt(k) {
    if
    :: sole[k] -> at[me] = LIST
    :: !sole[k] && !listed[k] ->
        if
        /* At the first attempt, if no other key has the place. */
        :: at[me] == IDLE && is_single(my_hold) -> sole[k] = true
        :: listed[k] = true
        fi;
        take(my_hold, k);
        got()
    :: listed[k] -> found[me] = k; stale[me] = false; at[me] = ARRIVE
    fi
}

/* src/lock/index.rs: an entry for the hold that has none. */
inline list_sole(k, next) {
    if
    :: sole[k] -> listing[k] = true; at[me] = LISTING
    :: else -> at[me] = next
    fi
}

inline listed_it(k, next) {
    sole[k] = false;
    listing[k] = false;
    listed[k] = true;
    at[me] = next
}

inline may_run_out() {
    if
    :: by[me] == UNDECIDED -> by[me] = UNENDING
    :: by[me] == UNDECIDED -> by[me] = IN_TIME
    :: by[me] == UNDECIDED || by[me] == IN_TIME -> by[me] = LATE
    :: by[me] != UNDECIDED
    fi
}

inline stop_waiting() {
    fate[me] = LEFT;
    planned[me] = false;
    found[me] = NO_KEY;
    stale[me] = false;
    registered[me] = false
}

#ifdef ON_WORKER
#define USE_IT (me == 0 -> START : USE)
#else
#define USE_IT USE
#endif

inline got() {
    stop_waiting();
    if
    :: !has_all(my_hold) -> my_key = 1 - my_key; settle(FIND)
    :: else ->
        by[me] = UNDECIDED;
        my_key = first[my_hold];
        if
        :: !is_single(my_hold) -> then[me] = SET_LOCKS
        :: is_single(my_hold) && undrawn[my_hold] -> then[me] = DRAW
        :: is_single(my_hold) && !undrawn[my_hold] -> then[me] = USE_IT
        fi;
        settle(then[me])
    fi
}

#ifdef AGAIN
#define next_call (me == 0 && my_hold == 0 -> IDLE : GONE)
#else
#define next_call GONE
#endif

/* Nobody asks any more how it ended. */
inline over() {
#ifdef ON_WORKER
    if
    :: me == 0 || me == WORKER
    :: else -> end(my_hold); granted[my_hold] = 0; taken_away[my_hold] = false
    fi;
#else
    end(my_hold);
    granted[my_hold] = 0;
    taken_away[my_hold] = false;
#endif
    my_key = 0;
    settle(next_call)
}

/* ---- src/guard.rs ---- */

inline publish(h) {
    promise(no_late_write, !taken_away[h]);
    promise(exclusion, holder[first[h]] == h && holder[last[h]] == h)
}

inline commit_begin(open_gate, refused) {
    if
    :: word[my_hold] == OPEN ->
#ifndef COMMIT_WITHOUT_GATE
        word[my_hold] = COMMITTING;
#endif
        at[me] = open_gate
    :: else -> at[me] = refused
    fi
}

inline let_go() {
    if
    :: word[my_hold] == OPEN ->
        if
        :: is_late(my_hold) -> take_away(my_hold, EXPIRED)
        :: else -> end(my_hold)
        fi;
        at[me] = RELEASE
    :: else -> over()
    fi
}

#ifdef FINITE
#define may_prolong(h) (in_time(h) && !prolonged)
#define prolong()      prolonged = true
#else
#define may_prolong(h) in_time(h)
#define prolong()      skip
#endif

active [THREADS] proctype thread() {
    mtype turn = BUSY;
    byte head;
    bool must, evicted, left, goes_on;

    do
    /* The call: take. */
    :: atomic { at[me] == IDLE && calls(me) -> at[me] = GONE }
    :: atomic { at[me] == IDLE && calls(me) || at[me] == FIND ->
        if
        :: at[me] == IDLE -> begin_call()
        :: else
        fi;
        attempt(my_key) }
    :: atomic { at[me] == LIST && !listing[my_key] -> list_sole(my_key, FIND) }
    :: atomic { at[me] == LISTING -> listed_it(my_key, FIND) }
    :: atomic { (at[me] == ARRIVE || at[me] == JOIN) && may_enter(my_key) ->
        arrive(my_key);
        if
        :: turn == TAKEN -> got()
        :: turn == DEAD -> settle(FIND)
        :: turn == BUSY && at[me] == ARRIVE ->
            may_run_out();
            if
            :: by[me] == LATE -> stop_waiting(); settle(GIVE_UP)
            :: else -> settle(JOIN)
            fi
        :: turn == BUSY && at[me] == JOIN ->
            join(my_key);
#ifdef CAN_BE_TOLD
            settle(REGISTER)
#else
            settle(CHECK)
#endif
        fi;
        turn = BUSY }
#ifdef CAN_BE_TOLD
    :: atomic { at[me] == REGISTER -> registered[me] = true; at[me] = IN_FORCE }
#ifdef REGISTER_UNCHECKED
    :: atomic { at[me] == IN_FORCE -> at[me] = CHECK }
#else
    :: atomic { at[me] == IN_FORCE -> at[me] = (in_force(my_hold) -> CHECK : LEAVE) }
#endif
#endif
    :: atomic { at[me] == CHECK ->
        if
        :: fate[me] == WAITING -> at[me] = LOOK
        :: fate[me] == GRANTED -> got()
        :: fate[me] == TOLD -> stop_waiting(); at[me] = GIVE_UP
        fi }
    :: atomic { at[me] == LOOK && may_enter(my_key) ->
        look(my_key);
        may_run_out();
        if
        :: turn == TAKEN -> got()
        :: turn == BUSY && by[me] == LATE -> settle(LEAVE)
        :: turn == BUSY && by[me] != LATE -> settle(REST)
        fi;
        turn = BUSY }
    :: atomic { at[me] == REST && token[me] -> token[me] = false; at[me] = CHECK }
    :: atomic { at[me] == REST && by[me] == IN_TIME -> by[me] = LATE; at[me] = CHECK }
    /* Waking for a moment at which there is nothing to do would change nothing. */
    :: atomic { at[me] == REST && planned[me] && (holder[my_key] == NOBODY ||
                time[holder[my_key]] == OVERDUE && may_be_taken(holder[my_key])) ->
        at[me] = CHECK }
    :: atomic { at[me] == LEAVE && may_enter(my_key) ->
        leave(me, my_key, LEFT);
        if
        :: left -> stop_waiting(); settle(GIVE_UP)
        :: else -> settle(CHECK)
        fi;
        left = false }
    :: atomic { at[me] == GIVE_UP ->
        promise(no_late_grant, holder[my_key] != my_hold);
        by[me] = UNDECIDED;
        if
        :: word[my_hold] == TAKING -> end(my_hold)
        :: else
        fi;
        if
        :: granted[my_hold] == 0 -> over()
        :: else -> my_key = 1 - my_key; at[me] = RELEASE
        fi }
    :: atomic { at[me] == DRAW ->
        if
#ifdef TOKEN_UNCHECKED
        :: true ->
#else
        :: in_force(my_hold) ->
#endif
            promise(token_order, !outdrawn[my_hold]);
            draw(my_hold, my_key);
            at[me] = USE_IT
        /* Others follow already. */
        :: else -> over()
        fi;
        outdrawn[hold[me]] = false;
        undrawn[hold[me]] = false }
#ifdef TWO_KEYS
    :: atomic { at[me] == SET_LOCKS -> locks_set[my_hold] = true; at[me] = OPEN_ALL }
    :: atomic { at[me] == OPEN_ALL ->
        if
        :: word[my_hold] == TAKING ->
            draw(my_hold, 0);
            draw(my_hold, 1);
            open(my_hold);
            at[me] = HOLDER_OPENED
        :: else -> at[me] = RELEASE
        fi }
    :: atomic { at[me] == HOLDER_OPENED ->
#ifndef OPENING_UNWATCHED
        watch(my_key);
#endif
        if
        :: my_key < last[my_hold] -> my_key++; settle(HOLDER_OPENED)
        :: else -> my_key = first[my_hold]; settle(USE)
        fi }
#endif
    :: atomic { at[me] == PAY && may_pay -> pay() }

    /* The holder. It reads the clock, then tries the step; or it stops for ever. */
    :: atomic { at[me] == USE && may_prolong(my_hold) -> prolong(); at[me] = EXTEND }
    :: atomic { at[me] == USE && may_prolong(my_hold) -> prolong(); at[me] = COMMIT }
    :: atomic { at[me] == USE && in_time(my_hold) -> at[me] = FINISH }
    :: atomic { at[me] == USE -> at[me] = GONE }
    :: atomic { at[me] == EXTEND ->
        if
        :: word[my_hold] == OPEN && time[my_hold] != UNENDING -> time[my_hold] = IN_TIME
        :: else
        fi;
        at[me] = USE }
    :: atomic { at[me] == COMMIT -> commit_begin(PUBLISH, USE) }
    :: atomic { at[me] == PUBLISH -> publish(my_hold); word[my_hold] = OPEN; at[me] = USE }
    :: atomic { at[me] == FINISH -> commit_begin(PUBLISH_LAST, LET_GO) }
    :: atomic { at[me] == PUBLISH_LAST -> publish(my_hold); end(my_hold); at[me] = RELEASE }
    :: atomic { at[me] == USE || at[me] == LET_GO -> let_go() }
    :: atomic { at[me] == RELEASE && may_release(my_hold, my_key) && may_enter(my_key) ->
        release(my_hold, my_key);
        if
        :: my_key < last[my_hold] && has_all(my_hold) -> my_key++; settle(RELEASE)
        :: else ->
            if
            :: goes_on -> goes_on = false; settle(USE)
            :: else -> over()
            fi
        fi }

#ifdef ON_WORKER
    /* A worker's guard goes from live to revoked. */
    :: atomic { at[me] == USE && me == WORKER && is_late(my_hold) -> at[me] = EXPIRE }

    /* src/with_lock.rs: the caller, whose callback is the worker's from START on. */
    :: atomic { at[me] == START -> hold[WORKER] = my_hold; at[WORKER] = USE; at[me] = ATTEND }
    :: atomic { at[me] == ATTEND -> at[me] = (is_lost(my_hold) -> EXPIRE : AWAIT) }
    :: atomic { at[me] == AWAIT && has_finished(my_hold) -> at[me] = GONE }
    :: atomic { at[me] == AWAIT && (token[me] || is_late(my_hold)) ->
        token[me] = false;
        at[me] = EXPIRE }
    :: atomic { at[me] == EXPIRE ->
        if
#ifdef EXTENSION_IGNORED
        :: word[my_hold] == OPEN ->
#else
        :: word[my_hold] == OPEN && is_late(my_hold) ->
#endif
            promise(granted_extension, is_late(my_hold));
            take_away(my_hold, EXPIRED);
            goes_on = (me == WORKER);
            at[me] = RELEASE
        :: is_lost(my_hold) -> at[me] = (me == WORKER -> USE : RELEASE)
        :: word[my_hold] == COMMITTING || word[my_hold] == ENDED -> at[me] = GRACE
        :: else -> at[me] = ATTEND
        fi }
    :: atomic { at[me] == GRACE && word[my_hold] != COMMITTING &&
                (word[my_hold] != ENDED || has_finished(my_hold)) ->
        token[me] = false;
        at[me] = ATTEND }
#endif
#ifdef STOPS
    :: atomic { at[me] != GONE -> at[me] = GONE }
#endif
    od
}

#ifdef FORCED
inline released() {
    my_hold = NOBODY;
    my_key = 0;
    settle(GONE)
}

#define owner (my_hold % SEATS)

/* LockTable::force_release */
active proctype forcer() {
    byte head;
    bool must, left;

    do
    :: atomic { at[me] == IDLE -> at[me] = GONE }
    :: atomic { at[me] == IDLE || at[me] == FORCE ->
#ifdef TWO_KEYS
        if
        :: at[me] == IDLE -> my_key = 1
        :: skip
        fi;
#endif
        my_hold = holder[my_key];
        if
        :: my_hold == NOBODY -> released()
        :: my_hold != NOBODY && sole[my_key] -> at[me] = LIST
        :: my_hold != NOBODY && !sole[my_key] -> at[me] = REVOKE
        fi }
    :: atomic { at[me] == LIST && !listing[my_key] -> list_sole(my_key, FORCE) }
    :: atomic { at[me] == LISTING -> listed_it(my_key, FORCE) }
    :: atomic { at[me] == REVOKE ->
        if
        :: word[my_hold] == COMMITTING && !may_be_taken(my_hold) -> at[me] = GRACE
        :: word[my_hold] == TAKING || may_be_taken(my_hold) ->
            take_away(my_hold, REVOKED);
#ifdef TWO_KEYS
            at[me] = SEARCH
#else
            at[me] = RELEASE
#endif
        :: else -> released()
        fi }
    :: atomic { at[me] == GRACE && word[my_hold] != COMMITTING -> at[me] = FORCE }
#ifdef TWO_KEYS
    /* waits::expel_hold: the waits of the hold, then each under its entry's mutex. */
    :: atomic { at[me] == SEARCH ->
        at[me] = (registered[owner] && hold[owner] == my_hold -> EXPEL : RELEASE) }
    :: atomic { at[me] == EXPEL ->
        leave(owner, key[owner], TOLD);
        if
        :: left -> settle(TELL)
        :: else -> settle(RELEASE)
        fi;
        left = false }
    :: atomic { at[me] == TELL -> token[owner] = at[owner] != GONE; at[me] = RELEASE }
    :: atomic { at[me] == RELEASE -> release(my_hold, my_key); settle(RELEASE_ALL) }
    :: atomic { at[me] == RELEASE_ALL ->
        if
        :: locks_set[my_hold] -> my_key = 1 - my_key; release(my_hold, my_key)
        :: else
        fi;
        released() }
#else
    :: atomic { at[me] == RELEASE -> release(my_hold, my_key); released() }
#endif
    :: atomic { at[me] == PAY -> pay() }
    od
}
#endif

#ifdef LOOKED
/* Entry::holder, of an entry: claims it, copies what it says, and lets it go as it was. Once. */
#define may_look(k) (listed[k] && !has_looked)
active proctype looker() {
    bool has_looked;

    do
    :: atomic { may_look(0) -> looked[0] = true; has_looked = true }
    :: atomic { looked[0] -> looked[0] = false }
    od
}
#endif

/* Time passes at any moment, or stands still. */
#define may_pass(h) ((word[h] == OPEN || word[h] == COMMITTING) && \
                     (time[h] == IN_TIME || time[h] == LATE))
#define pass(h) time[h] = (time[h] == IN_TIME -> LATE : OVERDUE)

active proctype clock() {
    do
    :: atomic { may_pass(0) -> pass(0) }
    :: atomic { may_pass(1) -> pass(1) }
    :: atomic { may_pass(2) -> pass(2) }
    :: atomic { may_pass(3) -> pass(3) }
    od
}

/* ---- what must hold in every state, and in every state that nothing leaves ---- */

/* The lock is free, and its head sleeps with nobody on the way to wake it. */
#define owed_by(c, p) (owes_wake[p] == c || owes_watch[p] == c)
#define is_owed(c) \
    (owed_by(c, 0) || owed_by(c, 1) || owed_by(c, 2) || owed_by(c, 3) || owed_by(c, 4))
#define sleeps(c) (!token[c] && (at[c] == REST || at[c] == PAY && then[c] == REST))
#define is_forgotten(k, c) (is_head(k, c) && sleeps(c) && !is_owed(c))
#define lost_waiter(k) (holder[k] == NOBODY && \
                        (is_forgotten(k, 0) || is_forgotten(k, 1) || is_forgotten(k, 2)))

/* Who may wait for ever: for a key whose holder stopped and has no release time. */
#ifdef ON_WORKER
#define user(h) (h == 0 -> WORKER : h)
#else
#define user(h) (h == 3 -> 0 : h)
#endif
#define has_stopped(h) (h != NOBODY && at[user(h)] == GONE)
#ifdef STOPS
/* Or whose holder stopped in the middle of a step of ours, whose head did, or whose waker. */
#define may_stand(c) ((at[c] == LIST || at[c] == RELEASE) && listing[key[c]])
#define is_held_up(h) (has_stopped(h) && !(word[h] == OPEN && time[h] != UNENDING))
#define still_owes(c) (at[c] == GONE && (owes_wake[c] != NOBODY || owes_watch[c] != NOBODY))
#define has_stopped_as_head(k, c) (at[c] == GONE && is_head(k, c))
#define is_stuck(k) (is_held_up(holder[k]) || \
    listing[k] || still_owes(0) || still_owes(1) || still_owes(2) || has_stopped_as_head(k, 0) || \
    has_stopped_as_head(k, 1) || has_stopped_as_head(k, 2))
#else
#define may_stand(c) false
#define is_stuck(k) (has_stopped(holder[k]) && word[holder[k]] == OPEN && \
                     time[holder[k]] == UNENDING)
#endif
#define is_stuck_behind(k) (holder[k] != NOBODY && word[holder[k]] == TAKING && is_stuck(1))
#define may_rest(c)  (in_force(hold[c]) && (is_stuck(key[c]) || is_stuck_behind(key[c])))
#define may_await(c) (holder[0] == hold[c] && is_stuck(0))
#define may_stay(c)  (!calls(c) || at[c] == GONE || at[c] == REST && may_rest(c) || \
                      at[c] == AWAIT && may_await(c) || may_stand(c))

/* An entry that nobody holds, waits for, or keeps, and nobody is about to evict. */
#define is_to_be_evicted(k) (owes_evict[0] == k || owes_evict[1] == k || owes_evict[2] == k || \
                             owes_evict[3] == k || owes_evict[4] == k)
#define is_stray(k) (listed[k] && holder[k] == NOBODY && len(queue[k]) == 0 && !kept[k] && \
                     !is_to_be_evicted(k))

active proctype promises() {
    do
    :: atomic { lost_waiter(0) || lost_waiter(1) -> promise(no_lost_waiter, false) }
    :: timeout ->
        promise(every_call_ends, may_stay(0) && may_stay(1) && may_stay(2));
        promise(no_stray_entry, !is_stray(0) && !is_stray(1));
#ifdef FORCED
        promise(every_call_ends, at[FORCER] == GONE);
#endif
        break
    od
}
