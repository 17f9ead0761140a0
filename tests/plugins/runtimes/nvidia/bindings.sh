#!/bin/sh
# Fetches the Python bindings of four TensorRT releases, without their libraries (some megabytes each), into DIR/VERSION.
# usage: bindings.sh DIR [PYTHON]
set -eu
dir=$1
python=${2:-python3}
get() { "$python" -m pip install -q --no-deps --target "$dir/$2" "$1==$2"; }
[ -d "$dir/8.6.1" ] || get tensorrt-bindings 8.6.1
[ -d "$dir/10.3.0" ] || get tensorrt-cu12-bindings 10.3.0
[ -d "$dir/10.16.1.11" ] || get tensorrt-cu12-bindings 10.16.1.11
[ -d "$dir/11.4.0.106" ] || get tensorrt-cu13-bindings 11.4.0.106
echo "export EDGEPROF_TENSORRT_BINDINGS=$dir"
