#!/bin/sh
# Ask the SaveOS controller to take care of this machine:
#   SAVEOS_ENROLMENT_TOKEN=saveos1.… sh enrol.sh [options of `saveos-agent register`]
# It fetches saveos-agent, checks it, and runs `saveos-agent register`; run again, it changes nothing.
set -eu
umask 077

url=${url}
ca=${ca}
sha256=${sha256}

fail() { printf 'enrol.sh: %s\n' "$$*" >&2; exit 1; }

main() {
    command -v python3 >/dev/null 2>&1 || fail "python3 is missing: install it (apt install python3, or dnf install python3) and run this again."
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' || fail "python3 is older than 3.9: install a newer one and run this again."
    if [ "$$(id -u)" = 0 ]; then
        [ -x /usr/sbin/sshd ] || command -v sshd >/dev/null 2>&1 \
            || fail "sshd is missing: the controller comes by SSH. Install it (apt install openssh-server, or dnf install openssh-server) and run this again."
        bin=/usr/local/bin
    else
        bin=$$HOME/.local/bin
    fi
    work=$$(mktemp -d)
    trap 'rm -rf "$$work"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '%s\n' "$$ca" > "$$work/ca.pem"
    fetch "$$url/enrol/saveos-agent" "$$work/saveos-agent"
    agent=$$work/saveos-agent
    mkdir -p "$$bin"
    # A provisioned host has the agent already, put there by the role: leave that one alone.
    if [ ! -L "$$bin/saveos-agent" ]; then
        cp "$$agent" "$$bin/.saveos-agent.new"
        chmod 755 "$$bin/.saveos-agent.new"
        mv -f "$$bin/.saveos-agent.new" "$$bin/saveos-agent"
        agent=$$bin/saveos-agent
    fi
    python3 "$$agent" register --controller "$$url" "$$@"
}

# Fetch a file over a connection that only this controller's certificate can make, and compare its hash.
fetch() {
    python3 - "$$1" "$$2" "$$work/ca.pem" "$$sha256" <<'PYTHON'
import hashlib, ssl, sys, urllib.request

url, target, ca, expected = sys.argv[1:]
try:
    with open(ca) as file:
        pem = file.read().strip()
    context = ssl.create_default_context(cadata=pem) if pem else ssl.create_default_context()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with opener.open(url, timeout=30) as answer:
        content = answer.read(8 * 1024 * 1024)
except (OSError, ValueError) as error:
    sys.exit(f"enrol.sh: {url} cannot be fetched: {error}. Check that this machine reaches the controller.")
if hashlib.sha256(content).hexdigest() != expected:
    sys.exit(f"enrol.sh: {url} is not the file that this script expects: fetch enrol.sh again.")
with open(target, "wb") as file:
    file.write(content)
PYTHON
}

main "$$@"
