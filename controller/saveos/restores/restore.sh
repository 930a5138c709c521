#!/bin/sh
# Restores from a SaveOS recovery kit. Needs sh, borg (1.2 or newer) and, for a repository on a server, ssh.
set -eu
umask 077

usage() {
	cat <<'TEXT'
Usage: sh restore.sh VERB [OPTION…] [PATH…]

  ssh-key     make a key pair, and show the line that lets it in on the storage server
  list        list the archives
  files       list the files of an archive (below the PATHs)
  restore     restore an archive, or the PATHs in it, to an empty directory
  import-key  put the repository's key back, when it was damaged or its passphrase was changed

  --archive NAME      the archive (default: the newest)
  --target DIR        where to restore to, empty or new (default: ./restored)
  --repository PATH   a copy or mount of the repository, instead of the storage server
  --id ID             which repository, where the kit has several
  --opened FILE       what `saveos-seal open --key FILE <repositories/ID/sealed` printed; needed once, for a
                      kit that was not opened by `saveos recovery`

Exit codes: 0 done, 1 failed (one sentence says why), 2 wrong usage; borg's own where borg fails.
TEXT
}

die() {
	printf 'restore.sh: %s\n' "$*" >&2
	exit 1
}

wrong() {
	printf 'restore.sh: %s\n\n' "$*" >&2
	usage >&2
	exit 2
}

# The text of one field of an opened escrow, which has one field a line.
field() {
	text=$(sed -n "s/^ \"$1\": \"\(.*\)\",\{0,1\}\$/\1/p" "$2" | sed 's/\\"/"/g')
	case $text in
	'') die "$2 has no $1: is it what \`saveos-seal open\` printed?" ;;
	*\\u*) die "the $1 in $2 holds control characters: open the kit with \`saveos recovery open\` instead" ;;
	esac
	printf '%b' "$text"
}

kit=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
case $kit in
*\'*) die "the kit is in a directory whose name has a quote: move it elsewhere" ;;
esac
verb=${1:-}
[ $# -eq 0 ] || shift
case $verb in
'' | help | -h | --help)
	usage
	exit 0
	;;
ssh-key | list | files | restore | import-key) ;;
*) wrong "there is no verb $verb" ;;
esac

archive='' target=restored repository='' id='' opened=''
while [ $# -gt 0 ]; do
	case $1 in
	--archive | --target | --repository | --id | --opened)
		[ $# -ge 2 ] || wrong "$1 needs a value"
		case $1 in
		--archive) archive=$2 ;;
		--target) target=$2 ;;
		--repository) repository=$2 ;;
		--id) id=$2 ;;
		--opened) opened=$2 ;;
		esac
		shift 2
		;;
	--)
		shift
		break
		;;
	-*) wrong "there is no option $1" ;;
	*) break ;;
	esac
done

if [ -z "$id" ]; then
	for found in "$kit"/repositories/*/; do
		[ -z "$id" ] || die "the kit has several repositories: choose one with --id ($(ls "$kit/repositories" | tr '\n' ' '))"
		found=${found%/}
		id=${found##*/}
	done
fi
own=$kit/repositories/$id
[ -f "$own/url" ] || die "the kit has no repository $id"
url=$(cat "$own/url")
case $url in # the lost host said it, and it may have been somebody else's by then
ssh://[!-]*@[!-]*/*)
	case $url in
	*[[:space:][:cntrl:]\'\"\\\`\$\;\&\|\<\>\(\)\{\}\*\?\!\#]*) die "the kit's URL holds what no storage server's does: see $own/url" ;;
	esac
	;;
ssh://*) die "the kit's URL is none of a storage server: see $own/url" ;;
esac

if [ "$verb" = ssh-key ]; then
	case $url in
	ssh://*) ;;
	*) die "$url is a directory of the lost host itself: bring a copy or mount here and use --repository PATH" ;;
	esac
	[ -f "$kit/id_ed25519" ] || ssh-keygen -q -t ed25519 -N '' -C saveos-recovery -f "$kit/id_ed25519"
	rest=${url#ssh://}
	user=${rest%%@*}
	path=/${rest#*/}
	server=${rest#*@}
	printf 'On the storage server (%s), run as root, and take the line away when you are done:\n\n' "${server%%/*}"
	printf "  echo 'command=\"/opt/saveos/server/borg serve --append-only --restrict-to-repository %s\",restrict %s' \\\\\n" \
		"$path" "$(cat "$kit/id_ed25519.pub")"
	printf '    >>~%s/.ssh/authorized_keys\n\n' "$user"
	exit 0
fi

borg=${BORG:-borg}
command -v "$borg" >/dev/null || die "borg is missing: apt-get install borgbackup (or name it: BORG=/path/to/borg)"
if [ -n "$opened" ]; then
	field passphrase "$opened" >"$own/passphrase"
	field key_export "$opened" >"$own/key-export"
fi
[ -s "$own/passphrase" ] || die "the kit is still sealed: saveos recovery open --kit $kit --key FILE (or see README.txt)"

BORG_PASSPHRASE=$(cat "$own/passphrase")
BORG_BASE_DIR=$kit/.borg
BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
BORG_RSH="ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile='$own/known_hosts'"
BORG_RSH="$BORG_RSH -o GlobalKnownHostsFile=/dev/null -o ServerAliveInterval=15"
if [ -f "$kit/id_ed25519" ]; then
	BORG_RSH="$BORG_RSH -o IdentitiesOnly=yes -i '$kit/id_ed25519'"
fi
export BORG_PASSPHRASE BORG_BASE_DIR BORG_RELOCATED_REPO_ACCESS_IS_OK BORG_RSH
if [ -n "$repository" ]; then
	case $repository in
	/* | ssh://*) ;;
	*) repository=$PWD/$repository ;;
	esac
fi
repository=${repository:-$url}

case $verb in
list) exec "$borg" list "$repository" ;;
import-key) exec "$borg" key import "$repository" "$own/key-export" ;;
esac

if [ -z "$archive" ]; then
	archive=$("$borg" list --last 1 --short "$repository")
	[ -n "$archive" ] || die "there is no archive in $repository"
fi
count=$#
while [ "$count" -gt 0 ]; do # borg stores paths without the leading slash
	path=$1
	shift
	set -- "$@" "pp:${path#/}"
	count=$((count - 1))
done
[ "$verb" = restore ] || exec "$borg" list "$repository::$archive" "$@"

mkdir -p "$target"
[ -z "$(ls -A "$target")" ] || die "$target is not empty: name an empty or new directory with --target"
cd "$target"
"$borg" extract "$repository::$archive" "$@"
printf 'Restored %s to %s\n' "$archive" "$PWD"
