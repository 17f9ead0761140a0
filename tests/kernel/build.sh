#!/bin/sh
# Builds the kernel of the kernel tests: user-mode Linux from Debian's source package, the ina3221 and ina238 drivers
# untouched, and i2c-stub with one line more (it takes its children from the device tree). A few CPU-minutes, once;
# needs no root where the tools are there. Nothing of it is shipped: the kernel is GPL-2.0.
#
#   tests/kernel/build.sh [--install]      --install: get missing packages with apt-get first (root)
#
# EDGEPROF_KERNEL_CACHE   where the result goes (default ~/.cache/edgeprof-kernel)
# EDGEPROF_KERNEL_SOURCE  a linux-source-6.1.tar.xz of yours, instead of Debian's package
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${EDGEPROF_KERNEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/edgeprof-kernel}
series=6.1

# What the result depends on; a change of any of it builds anew.
stamp=$(cat "$here/build.sh" "$here/uml.config" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$cache/stamp" 2>/dev/null)" = "$stamp" ]; then
    echo "kernel: $(cat "$cache/version") is in $cache"
    exit 0
fi

missing=
for tool in gcc make flex bison bc xz; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
done
missing=$(echo "$missing" | sed 's/\<xz\>/xz-utils/; s/^ //')
if [ -n "$missing" ]; then
    if [ "${1:-}" = --install ] && [ "$(id -u)" = 0 ]; then
        # shellcheck disable=SC2086 # a list of package names
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing libc6-dev >/dev/null
    else
        echo "kernel: these are missing: sudo apt-get install $missing libc6-dev" >&2
        exit 2
    fi
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
cd "$work"

source=${EDGEPROF_KERNEL_SOURCE:-/usr/src/linux-source-$series.tar.xz}
if [ ! -f "$source" ]; then
    # A download unpacked here: no root, and nothing installed.
    if ! apt-get download "linux-source-$series" >apt.log 2>&1; then
        cat apt.log >&2
        echo "kernel: no linux-source-$series here; on Debian 12: sudo apt-get update && sudo apt-get install linux-source-$series;" \
             "elsewhere set EDGEPROF_KERNEL_SOURCE to a kernel.org linux-$series.*.tar.xz" >&2
        exit 2
    fi
    dpkg-deb -x linux-source-*.deb deb
    rm linux-source-*.deb
    source=$work/deb/usr/src/linux-source-$series.tar.xz
fi
echo "kernel: unpacking $source"
mkdir src && tar -xf "$source" -C src --strip-components=1
rm -rf deb

stub=src/drivers/i2c/i2c-stub.c
sed -i 's|^#include <linux/module.h>|&\n#include <linux/of.h>|' $stub
sed -i 's|^\(\t*\)ret = i2c_add_adapter(&stub_adapter);|\1stub_adapter.dev.of_node = of_find_compatible_node(NULL, NULL, "edgeprof,i2c-stub");\n&|' $stub
[ "$(grep -c 'edgeprof,i2c-stub' $stub)" = 1 ] || { echo "kernel: i2c-stub.c is not as expected" >&2; exit 1; }

echo "kernel: building (a few minutes)"
{
    KCONFIG_ALLCONFIG=$here/uml.config make -C src ARCH=um O="$work/uml" allnoconfig
    make -C src ARCH=um O="$work/uml" -j"${EDGEPROF_KERNEL_JOBS:-$(nproc)}" linux modules
} >build.log 2>&1 || { tail -n 30 build.log >&2; exit 1; }
for option in SENSORS_INA3221 SENSORS_INA238 OF UML_TIME_TRAVEL_SUPPORT; do
    grep -q "^CONFIG_$option=y" uml/.config || { echo "kernel: $option was dropped by kconfig" >&2; exit 1; }
done

strip -o "$cache/linux.new" uml/linux && mv "$cache/linux.new" "$cache/linux"
cp uml/drivers/i2c/i2c-stub.ko "$cache/i2c-stub.ko"
cp uml/scripts/dtc/dtc "$cache/dtc"
make -s -C src ARCH=um O="$work/uml" kernelrelease | tail -n 1 >"$cache/version"
echo "$stamp" >"$cache/stamp"
echo "kernel: $(cat "$cache/version") built into $cache"
