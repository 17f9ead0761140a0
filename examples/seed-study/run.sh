#!/bin/sh
# The whole seed study into build/seed-study: the three failures and their mending, then five architectures.
# SEED_STUDY_SIZE=64 makes the architectures' images smaller. A sweep that was stopped goes on: run it again.
set -eu
here=$(dirname "$0")
out=$here/../../build/seed-study
python "$here/failures.py" "$out"
[ -e "$out/random.npz" ] || python "$here/zoo.py" "$out"
edgeprof sweep "$here/zoo.toml" --dir "$out/zoo" -o "$out/zoo.html"
