#!/bin/sh
# Prometheus, promtool, node_exporter and Pushgateway for the tests of the exporter and the dashboards, from Debian's or
# Ubuntu's packages. Where they cannot be installed, those tests skip and name the command.
packages="prometheus prometheus-node-exporter prometheus-pushgateway openssl"
missing=
for command in promtool $packages; do command -v "$command" >/dev/null || missing=1; done
[ "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Prometheus is not wholly installed; its tests will skip. As root: apt-get install -y --no-install-recommends $packages" >&2
    exit 0
fi
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $packages >/dev/null
