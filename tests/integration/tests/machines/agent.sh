#!/usr/bin/env bash
# Runs what comes in on the second serial line (one line in base64 each), and answers with its exit code and output.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root KUBECONFIG=/etc/kubernetes/admin.conf
exec 3<>/dev/ttyS1
stty -F /dev/ttyS1 raw -echo
echo "@ready" >&3
while IFS= read -r told <&3; do
    base64 -d <<<"$told" >/run/told
    bash /run/told >/run/output 2>&1 </dev/null 3<&-
    code=$?
    { echo "@begin $code"; base64 /run/output; echo "@end"; } >&3
done
