#!/bin/sh
# Boots Debian with its own kernel and its own systemd in QEMU, installs edgeprof's wheel there, and checks the service's
# life (guest.py): each check is a line of JSON on stdout; 0 if all hold. Needs root once, for debootstrap.
#
#   tests/systemd/boot.sh [--install]      --install: get missing packages with apt-get first (root)
#
# EDGEPROF_SYSTEMD_CACHE   where the image goes (default ~/.cache/edgeprof-systemd)
# EDGEPROF_SYSTEMD_ACCEL   QEMU's accelerator (default tcg, which works everywhere; kvm is many times faster)
# PYTHON                   the Python whose pip makes the wheels (default python3; the guest has 3.11)
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${EDGEPROF_SYSTEMD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/edgeprof-systemd}
suite=bookworm

say() { echo "systemd: $*" >&2; }

missing=
for tool in qemu-system-x86_64:qemu-system-x86 mke2fs:e2fsprogs debootstrap:debootstrap; do
    command -v "${tool%:*}" >/dev/null || missing="$missing ${tool#*:}"
done
if [ -n "$missing" ]; then
    if [ "${1:-}" = --install ] && [ "$(id -u)" = 0 ]; then
        # shellcheck disable=SC2086 # a list of package names
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    else
        say "these are missing: sudo apt-get install$missing"
        exit 2
    fi
fi

# What the image depends on; a change of any of it builds anew.
stamp=$(cat "$here/boot.sh" "$here/powercap.c" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$cache/stamp" 2>/dev/null)" != "$stamp" ]; then
    [ "$(id -u)" = 0 ] || { say "the image is built by root, once: sudo $0"; exit 2; }
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    root=$work/root
    say "building Debian $suite (some minutes, once)"
    packages=systemd,systemd-sysv,udev,dbus,dbus-user-session,libpam-systemd,python3,python3-venv,kmod,i2c-tools,sudo
    packages=$packages,initramfs-tools,linux-image-amd64,linux-headers-amd64,gcc,make
    {
        debootstrap --variant=minbase --include=$packages $suite "$root" ${EDGEPROF_MIRROR:+"$EDGEPROF_MIRROR"}
        release=$(basename "$root"/lib/modules/*)
        mkdir "$root/tmp/powercap"
        cp "$here/powercap.c" "$root/tmp/powercap/edgeprof-powercap.c"
        echo 'obj-m := edgeprof-powercap.o' >"$root/tmp/powercap/Makefile"
        chroot "$root" make -C "/lib/modules/$release/build" M=/tmp/powercap modules
        install -D -t "$root/lib/modules/$release/extra" "$root/tmp/powercap/edgeprof-powercap.ko"
        rm -rf "$root/tmp/powercap"
        chroot "$root" depmod "$release"
    } >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
    printf '%s\n' edgeprof-powercap i2c-dev i2c-stub >"$root/etc/modules-load.d/lab.conf"
    echo 'options i2c-stub chip_addr=0x40' >"$root/etc/modprobe.d/lab.conf"
    printf '%s\n' '/dev/vda / ext4 rw 0 1' '/dev/vdb /mnt ext4 ro 0 0' >"$root/etc/fstab"
    echo lab >"$root/etc/hostname"
    cat >"$root/etc/systemd/system/lab.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
Environment=LC_ALL=C.UTF-8
ExecStart=/usr/bin/python3 -B /mnt/guest.py
[Install]
WantedBy=graphical.target
UNIT
    chroot "$root" systemctl enable -q lab.service
    chroot "$root" systemctl set-default -q graphical.target
    cp "$root"/boot/vmlinuz-* "$cache/vmlinuz"
    cp "$root"/boot/initrd.img-* "$cache/initrd"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/usr/src "$root"/usr/share/doc "$root"/usr/share/locale
    mke2fs -q -t ext4 -d "$root" "$work/root.img" 3G >&2
    mv "$work/root.img" "$cache/root.img"
    echo "$stamp" >"$cache/stamp"
    rm -rf "$work"
fi

run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT
trap 'exit 130' INT TERM
mkdir "$run/disk" "$run/disk/wheels"
say "making wheels"
"${PYTHON:-python3}" -m pip wheel -q --disable-pip-version-check -w "$run/disk/wheels" "$here/../..[exporter]"
cp "$here/guest.py" "$run/disk/"
mke2fs -q -t ext4 -d "$run/disk" "$run/disk.img" 512M >&2

say "booting"
# The disk's changes outlive a reboot of the guest and end with QEMU.
timeout "${EDGEPROF_SYSTEMD_TIMEOUT:-1800}" qemu-system-x86_64 \
    -accel "${EDGEPROF_SYSTEMD_ACCEL:-tcg}" -cpu max -smp 2 -m 1024 -nic none -display none -monitor none \
    -kernel "$cache/vmlinuz" -initrd "$cache/initrd" \
    -append "root=/dev/vda rw console=ttyS0 panic=-1" \
    -drive "file=$cache/root.img,if=virtio,format=raw,snapshot=on" \
    -drive "file=$run/disk.img,if=virtio,format=raw,readonly=on" \
    -serial "file:$run/console" -serial "file:$run/answer" </dev/null >&2 || say "QEMU ended with $?"

tr -d '\r' <"$run/answer" >"$run/lines"
cat "$run/lines"
if ! grep -q '"check": "all"' "$run/lines"; then
    say "the guest did not come to its end; its console:"
    tail -n 60 "$run/console" >&2
    exit 1
fi
! grep -q '"ok": false' "$run/lines"
