#!/usr/bin/env bash
# Searches every state of models/protocol.pml with spin: each variant must keep its promises, and
# each planted mistake must break the one that it is planted against.
set -u
. "$(dirname "$0")/results.sh"
results_begin protocol
needs spin && needs "${CC:-gcc}" || results_end

model=$root/models/protocol.pml
directory=$stage/tests/protocol

# search OPTIMIZATION MACRO...: leaves what the search said in found. A FINITE model is searched
# for runs without end as well. No partial order reduction: nearly every step is seen by others.
# -E: the model itself says in which states it may stay.
search() {
    local optimization=$1 mode=-DSAFETY cycles=()
    shift
    case " $* " in *" FINITE "*) mode=-DNP cycles=(-l) ;; esac
    rm -rf "$directory"
    mkdir -p "$directory"
    cd "$directory" || return
    # spin ends well after some errors, too.
    spin "${@/#/-D}" -a "$model" >errors 2>&1 && [ ! -s errors ] || { cat errors; return 1; }
    "${CC:-gcc}" "$optimization" -w "$mode" -DNOREDUCE -DMEMLIM=4000 pan.c -o pan &&
        timeout -k 5 600 ./pan -E -n -m100000 -w22 "${cycles[@]}" >found
}

# -O1: what -O2 saves in searching it spends on compiling.
keeps_its_promises() { # MACRO...
    search -O1 "$@" || return
    cat found
    grep -q '^Full statespace search' found && grep -q 'errors: 0$' found &&
        ! grep -qi 'not completed\|too small\|out of memory' found
}

breaks() { # PROMISE MACRO...
    local promise=$1
    shift
    search -O0 "$@" || return
    cut -c 1-200 found
    case $promise in
    finite) grep -q '^pan:1: non-progress cycle' found ;;
    *) grep -q "^pan:1: assertion violated ($promise||" found ;;
    esac
}

while read -r variant; do
    step "$variant" keeps_its_promises $variant
done <<'VARIANTS'
AGAIN
AGAIN FORCED CALLERS=2
STOPS
FORCED
LOOKED
AGAIN LOOKED CALLERS=2
TWO_KEYS
TWO_KEYS FORCED CALLERS=2
ON_WORKER
ON_WORKER FORCED CALLERS=2
FINITE
FINITE TWO_KEYS FORCED CALLERS=2
FINITE ON_WORKER FORCED CALLERS=2
VARIANTS

while read -r promise mistake variant; do
    step "$mistake breaks $promise" breaks "$promise" "$mistake" $variant
done <<'MISTAKES'
exclusion         EVICT_WITHOUT_STEP
exclusion         DEAD_ENTRY_TAKEN
no_late_write     COMMIT_WITHOUT_GATE
no_late_write     TAKE_AWAY_DURING_COMMIT
no_stale_release  RELEASE_UNCHECKED        ON_WORKER CALLERS=2
no_late_grant     LEFT_STAYS_QUEUED
no_lost_waiter    RELEASE_WITHOUT_WAKE
no_lost_waiter    LEAVE_WITHOUT_WAKE
granted_extension EXTENSION_IGNORED        ON_WORKER CALLERS=2
every_call_ends   HEAD_NOT_WATCHED
token_order       TOKEN_UNCHECKED
no_stray_entry    DECIDED_ON_A_SECOND_LOOK LOOKED CALLERS=2
every_call_ends   LISTING_IGNORED
every_call_ends   OPENING_UNWATCHED        TWO_KEYS CALLERS=2
every_call_ends   EVICT_ONE_KEY            TWO_KEYS CALLERS=2
every_call_ends   KEYS_OUT_OF_ORDER        TWO_KEYS CALLERS=2
every_call_ends   REGISTER_UNCHECKED       TWO_KEYS FORCED CALLERS=2
every_call_ends   REVOKE_UNWATCHED         ON_WORKER FORCED CALLERS=2
finite            OVERDUE_LEFT             FINITE
MISTAKES
results_end
