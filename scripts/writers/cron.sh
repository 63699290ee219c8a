#!/bin/sh
# The demo's cron job: notes something in a transcript and knows nothing of locks.   cron.sh TRANSCRIPT ROUNDS
# SIGTERM: the round under way is the last.
set -eu
trap 'set -- "$1" 0' TERM
round=0
while [ "$round" -lt "$2" ]; do
    sleep 0.7
    id=$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
    parent=$(tail -n 1 "$1" | sed -n 's/.*"id":"\([^"]*\)".*/\1/p')
    printf '{"type":"custom","id":"%s","parentId":"%s","customType":"note","data":{"round":%s}}\n' \
        "$id" "$parent" "$round" >>"$1"
    round=$((round + 1))
done
