#!/bin/sh
# Measures pipelines with a camera's frames: boots Debian's kernel in QEMU, whose driver vivid imitates a camera, with the
# host's Python and this checkout over 9p, and breaks the camera on purpose (camera.py). Run by hand; needs no root where
# qemu-system-x86_64 is installed. Some minutes.
#
#   tests/examples/camera.sh [CHECK...]      the checks are camera.py's functions; all if none is named
#
# EDGEPROF_CAMERA_CACHE   where kernel and OpenCV go (default ~/.cache/edgeprof-camera)
# PYTHON                  the Python with edgeprof (default .venv/bin/python of the checkout)
set -eu

here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../../.venv/bin/python}
cache=${EDGEPROF_CAMERA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/edgeprof-camera}
command -v qemu-system-x86_64 >/dev/null || { echo "camera: sudo apt-get install qemu-system-x86" >&2; exit 2; }

if [ ! -f "$cache/initrd" ]; then
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    cd "$work"
    kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p')
    apt-get download -qq "$kernel" busybox-static 2>/dev/null
    for package in *.deb; do dpkg-deb -x "$package" debian; done
    release=${kernel#linux-image-}
    mkdir -p root/bin root/host
    cp debian/bin/busybox root/bin/
    debian/bin/busybox depmod -b debian "$release"
    # Copies the modules with those that they need, under their own paths.
    for module in virtio_pci 9pnet_virtio 9p vivid; do
        for path in $(sed -n "s|^\(.*/$module.ko\):|\1|p" "debian/lib/modules/$release/modules.dep"); do
            install -D "debian/lib/modules/$release/$path" "root/lib/modules/$release/$path"
        done
    done
    cp debian/lib/modules/"$release"/modules.* "root/lib/modules/$release/"
    cat >root/init <<'INIT'
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sbin
/bin/busybox mount -t proc proc /proc
for module in virtio_pci 9pnet_virtio 9p vivid; do /bin/busybox modprobe $module; done
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=loose,ro host /host
/bin/busybox mount -t sysfs sysfs /host/sys
/bin/busybox mount -t devtmpfs devtmpfs /host/dev
/bin/busybox mount -t tmpfs -o mode=1777 tmpfs /host/dev/shm 2>/dev/null || {
    /bin/busybox mkdir /host/dev/shm; /bin/busybox mount -t tmpfs -o mode=1777 tmpfs /host/dev/shm; }
/bin/busybox mount -t tmpfs tmpfs /host/run
/bin/busybox umount /proc
/bin/busybox mount -t proc proc /host/proc
# shellcheck disable=SC2046
exec /bin/busybox switch_root /host $(/bin/busybox sed -n 's/.*camera=\([^ ]*\).*/\1/p' /host/proc/cmdline | /bin/busybox tr , ' ')
INIT
    chmod +x root/init
    "$python" -m pip install -q --disable-pip-version-check --no-deps --target opencv opencv-python-headless
    rm -rf "$cache/opencv"
    mv opencv "$cache/opencv"
    cp debian/boot/vmlinuz-* "$cache/vmlinuz"
    (cd root && find . | ../debian/bin/busybox cpio -o -H newc 2>/dev/null) | gzip >"$cache/initrd.new"
    mv "$cache/initrd.new" "$cache/initrd"
    cd "$here"
fi

# An emulated processor compiles Python's modules very slowly, so a bench compiles them here first.
(
    cd "$(mktemp -d)"
    trap 'rm -rf "$PWD"' EXIT
    cp "$here/camera.py" camera.py
    unset PYTHONDONTWRITEBYTECODE
    PYTHONPYCACHEPREFIX=$cache/pycache PYTHONPATH=$cache/opencv "$python" camera.py "$cache/opencv" --compile
)

timeout 3600 qemu-system-x86_64 -accel tcg -cpu max -smp 2 -m 2048 -nic none -display none -monitor none -no-reboot \
    -kernel "$cache/vmlinuz" -initrd "$cache/initrd" \
    -append "quiet loglevel=3 console=ttyS0 panic=-1 camera=$(echo "$python" -B "$here/camera.py" "$cache/opencv" "$@" | tr ' ' ,)" \
    -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
    -serial stdio </dev/null
