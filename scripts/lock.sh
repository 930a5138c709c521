#!/bin/sh
# Make the locks anew from pyproject.toml and requirements/bundle.in: hashes, and no registry named. Needs uv on PATH.
set -eu
cd "$(dirname "$0")/.."
lock() {
    uv pip compile --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --python-version 3.11 -q "$@"
}
lock pyproject.toml --group build "$@" -o requirements/runtime.txt
lock pyproject.toml --group dev --group build -c requirements/runtime.txt "$@" -o requirements/dev.txt
lock requirements/bundle.in "$@" -o requirements/bundle.txt
lock requirements/assets.in "$@" -o requirements/assets.txt
for file in requirements/*.txt; do
    sed -i '1i # Locked by hash; made by scripts/lock.sh. Change pyproject.toml or *.in instead.' "$file"
done
