# shellcheck shell=sh
# What the wrappers of old command lines share; sourced by them. Each is thin: it says the same to `saveos`.
# Words that are no option are hosts. Without one, every host is meant; SAVEOS_HOSTS names others once and for all.

set -eu

here=$(cd "$(dirname "$0")" && pwd)
hosts=${SAVEOS_HOSTS:-}
options=

run() { # the command of this installation, else of this checkout
    if command -v saveos > /dev/null 2>&1; then saveos "$@"
    elif [ -x "$here/../.venv/bin/saveos" ]; then "$here/../.venv/bin/saveos" "$@"
    else
        echo "$(basename "$0"): the command saveos is not installed: sh scripts/setup.sh, or put it on PATH" >&2
        exit 127
    fi
}

help() { # the comment at the head of the wrapper
    sed -n '2,/^[^#]/{ s/^# \{0,1\}//p; }' "$0"
    exit 0
}

refuse() { # a word that is not known: usage, as saveos has it
    echo "$(basename "$0"): $1 is not known; see $(basename "$0") --help" >&2
    exit 2
}

# hosts and options are lists of plain words: host names, and options without spaces
# shellcheck disable=SC2086
on_hosts() { # run a command of saveos on the hosts that were named, or on all
    if [ -n "$hosts" ]; then run "$@" $options $hosts; else run "$@" $options --all; fi
}
