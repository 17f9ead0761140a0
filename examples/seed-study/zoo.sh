#!/bin/sh
# Export five architectures to ONNX and bench each beside its variants: examples/seed-study/zoo.sh [DIR] [NAME...]
set -eu
here=$(dirname "$0")
out=${1:-build/zoo}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- vgg11 alexnet mobilenet_v2 efficientnet_b0 nasnet_mobile
for name in "$@"; do
    narrow=prune-structured:amount=0.3+export-onnx
    edgeprof compress "$here/zoo.py:$name" --with export-onnx --with "$narrow" -o "$out"
    # Each by itself: a variant is compared with its own baseline, and memory holds one family at a time.
    edgeprof bench "$out/zoo-$name.export-onnx.onnx" --name "$name" --quick -o "$out/$name.json" \
        --with int8-dynamic --with prune:amount=0.5 --with low-rank:energy=0.6 --with cluster
    edgeprof bench "$out/zoo-$name.export-onnx.onnx" "$out/zoo-$name.prune-structured_amount=0.3_+export-onnx.onnx" \
        --name "$name" --name "$name narrow" --quick -o "$out/$name-narrow.json"
done
edgeprof report "$out"/*.json -o "$out/report.html"
