#!/bin/sh
# Make saveos.fleet.* resolve from this checkout: .collections/ansible_collections/saveos/fleet -> the checkout.
set -eu
cd "$(dirname "$0")/.."
link=.collections/ansible_collections/saveos/fleet
mkdir -p "${link%/*}"
[ "$(readlink "$link" 2>/dev/null || true)" = "$PWD" ] || ln -sfn "$PWD" "$link"
