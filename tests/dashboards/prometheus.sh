#!/bin/sh
# Prometheus and promtool for the tests of the exporter and the dashboards, from Debian's or Ubuntu's packages. Where
# they cannot be installed, those tests skip and name the command.
command -v prometheus >/dev/null && command -v promtool >/dev/null && command -v openssl >/dev/null && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Prometheus is not installed; its tests will skip. As root: apt-get install -y --no-install-recommends prometheus" >&2
    exit 0
fi
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends prometheus openssl >/dev/null
