#!/usr/bin/env bash
# Installs what `make test-real` needs from Debian or Ubuntu. Quick where everything is there; says what is missing
# and how to get it where we are not root or there is no apt. step-ca itself is built by compose/real/step_ca.py
# (needs Go 1.21 or newer), hawkBit by compose/real/hawkbit_server.py.
set -euo pipefail

# command (or library) that must be found : package that brings it
wanted=(
  wg:wireguard-tools
  wireguard-go:wireguard-go
  ip:iproute2
  ping:iputils-ping
  mosquitto:mosquitto
  mosquitto_pub:mosquitto-clients
  initdb:postgresql
  faketime:faketime
  openssl:openssl
  curl:curl
  mvn:maven
  javac:default-jdk-headless
  go:golang-go
  debootstrap:debootstrap
  systemd-nspawn:systemd-container
  systemd-analyze:systemd
  nsenter:util-linux
  dpkg-deb:dpkg
  swtpm:swtpm
  tpm2_clear:tpm2-tools
  tpm2-abrmd:tpm2-abrmd
  dbus-daemon:dbus
  ossl-modules/tpm2.so:tpm2-openssl
  libtss2-tcti-tabrmd.so.0:libtss2-tcti-tabrmd0
  libtss2-tcti-swtpm.so.0:libtss2-tcti-swtpm0
  softhsm2-util:softhsm2
  python3/dist-packages/cryptography:python3-cryptography
  python3/dist-packages/jwt:python3-jwt
  libconfig.so.9:libconfig9
  libglib-2.0.so.0:libglib2.0-0
)

export PATH="$PATH:/usr/sbin:/sbin"

have() {
  if [ "$1" = initdb ] && compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then return 0; fi
  case "$1" in *.so*) compgen -G "/usr/lib/*/$1" >/dev/null; return ;; */*) [ -e "/usr/lib/$1" ]; return ;; esac
  command -v "$1" >/dev/null
}

missing_packages() {
  local entry
  for entry in "${wanted[@]}"; do
    have "${entry%%:*}" || echo "${entry##*:}"
  done
}

mapfile -t missing < <(missing_packages)
if [ "${#missing[@]}" -eq 0 ]; then
  echo "Everything that the real servers need is installed."
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "Missing: ${missing[*]} (Debian's names). Install them with your package manager." >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "Missing: ${missing[*]}" >&2
  echo "Run: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi

export DEBIAN_FRONTEND=noninteractive
# Packages start their services by default; ours are started by the tests, on ports of their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=600 "${missing[@]}"

mapfile -t missing < <(missing_packages)
if [ "${#missing[@]}" -ne 0 ]; then
  echo "Still missing after the installation: ${missing[*]}" >&2
  exit 1
fi
