#!/bin/sh
# status.sh ID: print running, success or failed.
set -eu
state=$(squeue --noheader --states=all --format=%T --jobs="$1" 2> /dev/null || true)
[ -n "$state" ] || state=$(sacct --noheader --parsable2 --allocations --format=State --jobs="$1")
case "$state" in
  COMPLETED) echo success ;;
  PENDING | RUNNING | COMPLETING | CONFIGURING | SUSPENDED | PREEMPTED | REQUEUED | RESIZING) echo running ;;
  *) echo failed ;;
esac
