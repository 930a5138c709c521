#!/bin/sh
# Set this checkout up and run it. `make` is thin over it, and it works without make:
#   sh scripts/setup.sh up|down|purge|demo|demo-down|venv|dev|check|test|test-fast|bench
# Settings come from the environment; env.example names them all.
set -eu
cd "$(dirname "$0")/.."
ROOT=$PWD
PYTHON=/usr/bin/python3 # never a shim of PATH; the roles use the same one
VENV=$ROOT/.venv
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1
export PATH="$VENV/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH"
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

# What a fresh Debian machine may lack. The headers are for the agent bundle, which is built once.
RUN_PACKAGES="acl python3-venv openssh-client openssh-server"
BUNDLE_PACKAGES="gcc libc6-dev binutils pkg-config python3-dev libacl1-dev libssl-dev liblz4-dev libzstd-dev libxxhash-dev"
LAB_PACKAGES="openssh-client podman runc netavark iptables nftables mmdebstrap" # real hosts in containers
TEST_PACKAGES="git openssh-server postgresql chromium libfaketime $LAB_PACKAGES"

say() { printf '%s\n' "$*"; }
stop() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    command -v sudo >/dev/null 2>&1 ||
        stop "this needs root, and there is no sudo: log in as root and run it again."
    say "This needs root; continuing with sudo."
    # by name: a value on a command line is seen by everybody and logged by sudo, and some are secret
    kept=$(env | sed -nE 's/^(PATHS|SAVEOS_[A-Z_]+)=.+/\1/p' | paste -sd ,)
    exec sudo ${kept:+"--preserve-env=$kept"} sh "$ROOT/scripts/setup.sh" "$@"
}

check_machine() {
    [ -x $PYTHON ] || stop "there is no $PYTHON: apt-get install python3"
    $PYTHON -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        stop "$PYTHON is $($PYTHON -V 2>&1), and 3.11 or newer is needed (Debian 12 and later have it)."
    mkdir -p "$ROOT/.build" 2>/dev/null || stop "$ROOT cannot be written: check out where you may write."
    free=$(df -Pk "$ROOT" | awk 'NR == 2 { print int($4 / 1024) }')
    [ -x "$VENV/bin/saveos" ] || [ "$free" -ge 1500 ] ||
        stop "only $free MB are free where $ROOT is, and 1500 MB are needed: free some, or check out elsewhere."
}

check_paths() {
    for path in ${PATHS:-}; do
        case $path in
            /*) [ -d "$path" ] || stop "PATHS names $path, which is no directory here: name directories that exist." ;;
            *) stop "PATHS names $path: name directories by their absolute path." ;;
        esac
    done
}

# Install the Debian packages that are missing; one sentence when that is impossible.
packages() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null 2>&1 || stop "this is no Debian: install these yourself, then run it again:$missing"
    [ "$(id -u)" -eq 0 ] || stop "packages are missing; as root run: apt-get install -y$missing"
    say "Installing packages:$missing"
    apt="apt-get -q -o DPkg::Lock::Timeout=120" # unattended upgrades may hold the lock for a while
    # shellcheck disable=SC2086 # lists of words
    if ! { $apt update && $apt install -y --no-install-recommends $missing; } >.build/apt.log 2>&1 </dev/null; then
        tail -n 5 .build/apt.log >&2
        stop "the packages could not be installed (see .build/apt.log): is the package mirror reachable?"
    fi
}

# stamp_of FILE…: a hash of what a virtual environment is made of
stamp_of() { { $PYTHON -V; printf '%s\n' "$ROOT"; cat pyproject.toml "$@"; } | sha256sum | cut -c 1-32; }

# venv runtime|dev: install exactly what the lock names; a second run compares a stamp only.
venv() {
    stamp=$VENV/.$1-$(stamp_of "requirements/$1.txt")
    [ -x "$VENV/bin/saveos" ] && [ -e "$stamp" ] && return 0
    packages python3-venv
    say "Installing Python packages into .venv"
    "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || {
        rm -rf "$VENV"
        $PYTHON -m venv "$VENV" || stop "a virtual environment could not be made in $VENV."
    }
    rm -f "$VENV/.$1-"*
    if ! "$VENV/bin/python" -m pip install -q --require-hashes -r "requirements/$1.txt" >.build/pip.log 2>&1; then
        tail -n 5 .build/pip.log >&2
        stop "the Python packages could not be installed (see .build/pip.log): is the package index reachable?"
    fi
    link_package
    touch "$stamp"
}

# The checkout itself: its source root on Python's path, and the command. (An editable install would copy roles and
# templates, which then grow old.) The command's first lines are shell, because a "#!" line may not hold every path.
link_package() {
    site=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf '%s\n' "$ROOT/controller" >"$site/saveos.pth"
    cat >"$VENV/bin/saveos" <<COMMAND
#!/bin/sh
'''exec' "$VENV/bin/python" -I "\$0" "\$@"
' '''
from saveos.cli.main import main

main()
COMMAND
    chmod 755 "$VENV/bin/saveos"
}

# begin_bundle: build the agent bundle, if there is none, while Python's packages are fetched. prepare waits for it.
begin_bundle() {
    building=
    [ -z "${SAVEOS_BUNDLE:-}" ] && ! $PYTHON scripts/bundle.py --check >/dev/null || return 0
    # shellcheck disable=SC2086
    packages $BUNDLE_PACKAGES
    trap '[ -z "$building" ] || kill "$building" 2>/dev/null' EXIT
    trap 'exit 130' INT TERM HUP
    $PYTHON scripts/bundle.py >/dev/null &
    building=$!
}

# What the programs of this checkout are made of: the collection's link, the dashboard's files, the agent bundle.
prepare() {
    sh scripts/link-collection.sh
    "$VENV/bin/python" scripts/assets.py || stop "the dashboard's files could not be collected: is the npm registry reachable?"
    [ -z "$building" ] || wait "$building" || stop "the agent bundle could not be built; see above."
    building=
}

up() {
    need_root up
    check_machine
    check_paths
    # shellcheck disable=SC2086
    packages $RUN_PACKAGES
    [ -d /run/systemd/system ] || packages cron
    begin_bundle
    venv runtime
    saveos up --only-check
    prepare
    # shellcheck disable=SC2086
    exec saveos up ${PATHS:-}
}

# Four hosts in containers and a controller of their own; nothing of this machine is backed up or changed.
demo() {
    need_root demo
    check_machine
    # shellcheck disable=SC2086
    packages $LAB_PACKAGES
    begin_bundle
    venv runtime
    prepare
    exec python scripts/demo.py up
}

demo_down() {
    need_root demo-down
    [ -x "$VENV/bin/saveos" ] || stop "there is no demo to end: nothing is set up in this checkout."
    exec python scripts/demo.py down
}

# down|purge: nothing is set up for it, so without a virtual environment there is nothing to stop.
installed() {
    need_root "$@"
    [ -x "$VENV/bin/saveos" ] || stop "nothing is set up in this checkout: run it where \`make up\` was run."
    exec saveos "$@"
}

check() {
    check_machine
    venv dev
    sh scripts/link-collection.sh
    failed=
    for step in "ruff check" "ruff format --check" mypy lint-imports "ansible-lint --offline -q" "yamllint -s ." \
        "python scripts/templates_check.py"; do
        say "== $step"
        $step || failed="$failed
  $step"
    done
    [ -z "$failed" ] || stop "these found something:$failed"
    say "All checks passed."
}

# Let tests work in memory where there is room: a test on PostgreSQL copies a database, which takes ten times as
# long on a disk. Lab hosts stay on the disk.
scratch_in_memory() {
    room=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print int($4 / 1024) }')
    [ -w /dev/shm ] && [ "${room:-0}" -ge 4000 ] || return 0
    scratch=$(mktemp -d /dev/shm/saveos-tests.XXXXXX)
    chmod 755 "$scratch" # a database server does not run as root
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 130' INT TERM HUP
    if printf '#!/bin/sh\n' >"$scratch/exec" && chmod 755 "$scratch/exec" && "$scratch/exec" 2>/dev/null; then
        export TMPDIR="$scratch"
    fi
}

test_fast() {
    check_machine
    venv dev
    sh scripts/link-collection.sh
    scratch_in_memory
    pytest -q -n 2 --dist loadfile -m "not postgresql" tests/unit tests/api tests/test_architecture.py "$@"
}

# begin_images: make what lab hosts are made of while other things are fetched; a lab makes what is missing.
begin_images() {
    [ "$(id -u)" -eq 0 ] || return 0
    for suite in bookworm trixie; do
        bash tests/lab/image/build.sh $suite
    done >.build/images.log 2>&1 &
}

# Why real hosts cannot be had on this machine; empty when they can.
lab_is_unfit() { (cd tests/lab && python -c 'import lab; print(lab.unfit())'); }

test_all() {
    check_machine
    # shellcheck disable=SC2086
    [ "$(id -u)" -ne 0 ] || packages $TEST_PACKAGES
    begin_bundle
    begin_images
    venv dev
    prepare
    unfit=$(lab_is_unfit)
    [ -z "$unfit" ] || [ "${CI:-}" != true ] || stop "$unfit, and under CI a skipped part is a failure."
    status=0
    rm -f .build/tests-*.xml
    say "== pytest: unit, API, architecture, playbooks" # three, because some wait for sleeping processes
    scratch_in_memory
    pytest -q -n 3 --dist loadfile --one-engine --junit-xml=.build/tests-fast.xml --ignore tests/lab --ignore tests/dashboard tests || status=1
    say "== pytest: lab; beside it the dashboard and molecule, because hosts are waited for now and then"
    [ -z "$unfit" ] || say "Lab tests are skipped: $unfit."
    beside_the_lab >.build/tests-beside.log 2>&1 &
    beside=$!
    unset TMPDIR
    # The order is that of tests/lab/conftest.py.
    pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=10 --junit-xml=.build/tests-lab.xml tests/lab || status=1
    wait "$beside" || status=1
    cat .build/tests-beside.log
    counts || status=1
    [ $status -eq 0 ] || stop "something failed; see above."
}

beside_the_lab() {
    ended=0
    say "== pytest: dashboard"
    pytest -q --junit-xml=.build/tests-dashboard.xml tests/dashboard || ended=1
    unset TMPDIR
    for scenario in molecule/*/molecule.yml; do
        name=$(basename "$(dirname "$scenario")")
        if [ -n "$unfit" ]; then
            say "molecule $name is skipped: $unfit."
        elif say "== molecule $name" && molecule test -s "$name"; then
            say "Molecule scenario passed: $name"
        else
            ended=1
            say "Molecule scenario failed: $name"
        fi
    done
    return $ended
}

# One line with what pytest ran; under CI a skipped test makes it fail.
counts() {
    $PYTHON - "${CI:-}" <<'PYTHON'
import glob, sys, xml.etree.ElementTree as tree
total = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
for file in glob.glob(".build/tests-*.xml"):
    for suite in tree.parse(file).iter("testsuite"):
        for name in total:
            total[name] += int(suite.get(name, 0))
bad = total["failures"] + total["errors"]
print(f"Tests: {total['tests'] - bad - total['skipped']} passed, {bad} failed, {total['skipped']} skipped")
if total["skipped"] and sys.argv[1] == "true":
    sys.exit("Under CI a skipped test is a failure.")
PYTHON
}

bench() {
    check_machine
    begin_bundle
    venv dev
    prepare
    exec python -m bench "$@"
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
    up) up ;;
    down) installed down "$@" ;;
    purge) installed purge "$@" ;;
    demo) demo ;;
    demo-down) demo_down ;;
    venv) check_machine && venv runtime && sh scripts/link-collection.sh ;;
    dev) check_machine && begin_bundle && venv dev && prepare ;;
    check) check ;;
    test) test_all ;;
    test-fast) test_fast "$@" ;;
    bench) bench "$@" ;;
    *) stop "usage: sh scripts/setup.sh up|down|purge|demo|demo-down|venv|dev|check|test|test-fast|bench" ;;
esac
