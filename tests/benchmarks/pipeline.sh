#!/usr/bin/env bash
# What the agent replaces, written with care: the same requests to the bridge, the same files, the same order of them.
# Reads the agent's variables BRIDGE_API_URL, DEVICE_ID, STEP_CA_FINGERPRINT and CERTS_DIR.
#
# It has the agent's first enrollment and nothing else: no second try, no inventory, no wrong clock, no half written
# folder, no limits on what is answered, no check of the VPN fields. As few processes as the work takes: one jq for
# each file that it writes, one openssl for all that is read off a certificate.
set -euo pipefail
umask 077
fail() { printf '%s\n' "$1" >&2; exit 1; }

mkdir -p "$CERTS_DIR"
cd "$CERTS_DIR"
exec 9<.
flock -n 9 || fail "another run works in $CERTS_DIR"

# Keys and CSR are on the medium before the first request, so that the next boot asks with the same ones.
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out .device.key.new
wg genkey >.wg.key.new
wg_public_key=$(wg pubkey <.wg.key.new)
openssl req -new -key .device.key.new -subj "/CN=$DEVICE_ID" -addext "subjectAltName=DNS:$DEVICE_ID" -out .device.csr.new
sync .device.key.new .wg.key.new .device.csr.new
for name in device.key wg.key device.csr; do mv ".$name.new" "$name"; done
sync .

# The root, over a connection that nobody has verified; its digest decides.
curl -fsSk --max-time 25 "$BRIDGE_API_URL/root/$STEP_CA_FINGERPRINT" | jq -er .ca >.root.crt.new
digest=$(openssl x509 -in .root.crt.new -noout -fingerprint -sha256)
digest=${digest#*=}
digest=${digest//:/}
[[ ${digest,,} == "$STEP_CA_FINGERPRINT" ]] || fail "the root served has SHA-256 ${digest,,}"

# The one request that counts, over a connection that the root vouches for.
body=$(jq -n --rawfile csr device.csr --arg key "$wg_public_key" '{csr_pem: $csr, wg_public_key: $key}')
answer=$(curl -fsS --max-time 25 --cacert .root.crt.new -H 'Content-Type: application/json' -d "$body" \
  "$BRIDGE_API_URL/devices/$DEVICE_ID/enroll")
jq -er .cert <<<"$answer" >.device.crt.new
jq -er .ca_chain <<<"$answer" >.ca-chain.crt.new

# Is it this device's, for this key, issued below the pinned root?
openssl verify -CAfile .root.crt.new -untrusted .ca-chain.crt.new -purpose sslclient .device.crt.new >/dev/null
told=$(openssl x509 -in .device.crt.new -noout -pubkey -subject -serial -fingerprint -sha256 -ext subjectAltName)
[[ $told == "$(openssl pkey -in device.key -pubout)"* ]] || fail "the certificate is of another key"
[[ $told == *"CN = $DEVICE_ID"* && $told == *"DNS:$DEVICE_ID"* ]] || fail "the certificate is another device's"
serial=${told#*serial=}
leaf=${told#*Fingerprint=}
leaf=${leaf%%$'\n'*}
leaf=${leaf//:/}

jq -er --rawfile key wg.key '"[Interface]\nPrivateKey = \($key | rtrimstr("\n"))\nAddress = \(.wg.address)\n
[Peer]\nPublicKey = \(.wg.server_public_key)\nEndpoint = \(.wg.endpoint)
AllowedIPs = \(.wg.allowed_ips | join(", "))\nPersistentKeepalive = \(.wg.persistent_keepalive)"' \
  <<<"$answer" >.wg0.conf.new
jq -e --arg id "$DEVICE_ID" --arg serial "${serial%%$'\n'*}" --arg leaf "${leaf,,}" --arg bridge "$BRIDGE_API_URL" '
  if .device_id != $id then error("the answer is for another device") else . end |
  {version: 1, device_id, generation, serial: $serial, leaf_sha256: $leaf, address: .wg.address, not_after, renew_after,
   enrolled_at: .server_time, bridge: $bridge, endpoint: .wg.endpoint, mqtt, hawkbit, state}' \
  <<<"$answer" >.enrolled.new

# The flag last, so that its presence speaks for all other files.
chmod 644 device.csr .device.crt.new .ca-chain.crt.new .root.crt.new .enrolled.new
sync .root.crt.new .ca-chain.crt.new .device.crt.new .wg0.conf.new .enrolled.new
for name in root.crt ca-chain.crt device.crt wg0.conf; do mv ".$name.new" "$name"; done
sync .
mv .enrolled.new enrolled
sync .
