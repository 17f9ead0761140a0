#!/bin/sh
# Install, use and remove a Debian package: unshare --mount tests/docs/deb.sh PACKAGE MODEL SCRATCH [ROOT]
#
# In a copy-on-write view of ROOT (this system, if none is given), which is gone with the mount namespace. Prints what is
# left of the package behind it, which should be nothing.
set -eu
package=$1 model=$2 scratch=$3 below=${4:-/}

mount -t tmpfs tmpfs "$scratch"
root=$scratch/root
mkdir "$scratch/upper" "$scratch/work" "$root"
mount -t overlay overlay -o "lowerdir=$below,upperdir=$scratch/upper,workdir=$scratch/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
cp "$package" "$root/tmp/edgeprof.deb"
cp "$model" "$root/tmp/model.onnx"

inside() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 EDGEPROF_LOCK_DIR=/tmp EDGEPROF_DATA_DIR=/tmp/data \
        chroot "$root" "$@"
}
inside dpkg -i /tmp/edgeprof.deb >&2
inside edgeprof --version
inside edgeprof bench /tmp/model.onnx --windows 2 --window 0.2 --idle 0.2 --threads 1 -q
inside edgeprof exporter --help >/dev/null
grep -q /opt/edgeprof/bin/edgeprof "$root/usr/lib/systemd/system/edgeprof-exporter.service"
for file in bash-completion/completions/edgeprof zsh/vendor-completions/_edgeprof man/man1/edgeprof-bench.1.gz; do
    [ -s "$root/usr/share/$file" ] || echo "missing: $file"
done
inside dpkg --purge edgeprof >&2
find "$root/opt" "$root/etc" "$root/usr" -name '*edgeprof*' | sed 's/^/left: /'
