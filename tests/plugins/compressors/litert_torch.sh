#!/bin/sh
# Runs the tests of PyTorch's export to TFLite with litert-torch, in an environment of its own on top of PYTHON's: JAX and
# Transformers come with it (some 900 MB), and anyio's pytest plugin, which our warnings-are-errors stumbles over.
# usage: litert_torch.sh DIR PYTHON
set -eu
dir=$1
python=$2
if [ ! -e "$dir/.done" ]; then
    "$python" -m venv --without-pip --clear "$dir"
    below=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    own=$("$dir/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "import site; site.addsitedir('$below')" >"$own/below.pth"
    if ! "$python" -m pip --disable-pip-version-check --python "$dir/bin/python" install -q -c tests/constraints.txt \
        "litert-torch>=0.10"; then
        echo "litert-torch cannot be installed here: the test of the export is skipped" >&2
        exit 0
    fi
    touch "$dir/.done"
fi
exec "$dir/bin/python" -m pytest -q -p no:anyio -n 0 tests/plugins/compressors/torch/test_methods.py -k "become_tflite"
