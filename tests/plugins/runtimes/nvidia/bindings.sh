#!/bin/sh
# Fetches the Python bindings of four TensorRT releases, without their libraries, and NVIDIA's cuda-python, into DIR (some
# 30 MB), for tests that compare signatures. What has no wheel for this Python is left out, and its tests skip.
# usage: bindings.sh DIR [PYTHON]
set -u
dir=$1
python=${2:-python3}
get() {
    [ -d "$dir/$1" ] && return
    shift_to=$1
    shift
    "$python" -m pip install -q --disable-pip-version-check --no-deps --target "$dir/$shift_to" "$@" 2>/dev/null && return
    rm -rf "${dir:?}/$shift_to"
    echo "no $* for this Python: its tests will skip" >&2
}
get 8.6.1 tensorrt-bindings==8.6.1
get 10.3.0 tensorrt-cu12-bindings==10.3.0
get 10.16.1.11 tensorrt-cu12-bindings==10.16.1.11
get 11.4.0.106 tensorrt-cu13-bindings==11.4.0.106
get cuda-python cuda-bindings==13.5.0 cuda-pathfinder
