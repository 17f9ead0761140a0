#!/bin/sh
# make demo: two models side by side on this machine, then on a virtual Jetson. BIN is where edgeprof is installed.
set -eu
here=$(dirname "$0")
edgeprof=${BIN:?names the folder of the edgeprof command}/edgeprof
out=${OUT:-build/demo}
mkdir -p "$out"
data=$(cd "$out" && pwd)/data # a demo leaves nothing in your history
EDGEPROF_DATA_DIR=$data
export EDGEPROF_DATA_DIR

say() { printf '\n── %s\n\n' "$*"; }

# Between quick and default: a minute each, and intervals narrow enough to say something.
set -- "$edgeprof" bench "$here/digits.onnx" "$here/digits-int8.onnx" \
    --preset quick --windows 6 --window 3 --idle 3 --threads 1 --dataset "$here/digits-test.npz" --metric top1

say "1  A model and its int8 variant on this machine"
# Exit 3 is a variant that could not be measured: the table says so, and the rest is worth seeing.
"$@" -o "$out/here.json" || [ $? = 3 ]

say "2  The same on a virtual Jetson Orin Nano; its rails follow the bench's own load, its joules are simulated"
rm -rf "$out/jetson"
"$edgeprof" simulate jetson-orin-nano --dir "$out/jetson" --follow command -- "$@" -o "$out/jetson.json" || [ $? = 3 ]

say "3  One page of both"
"$edgeprof" report "$out/here.json" "$out/jetson.json" -o "$out/report.html"
echo "open $out/report.html"
echo "these runs again: EDGEPROF_DATA_DIR='$data' $edgeprof history"
