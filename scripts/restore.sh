#!/bin/sh
# Bring an archive, or some of its paths, back.
#   restore.sh HOST [ARCHIVE] [--path PATH]… [--target DIRECTORY|--in-place] [--dry-run]
#   restore.sh --list [HOST]                   list archives
#   ARCHIVE is an id, or latest. What was restored is compared by hash (--verify says the same again).
#   --json prints JSON. Today: saveos maintenance backup restore
. "$(dirname "$0")/old-commands.sh"

host='' archive='' list=''
set -- "$@" --end-of-words
while [ "$1" != --end-of-words ]; do
    word=$1
    shift
    case $word in
        --list) list=1 ;;
        --host | --archive | --path | --target | --destination)
            [ "$1" != --end-of-words ] || refuse "$word without a value"
            case $word in
                --host) host=$1 ;;
                --archive) archive=$1 ;;
                --path) set -- "$@" --path "$1" ;;
                *) set -- "$@" --destination "$1" ;;
            esac
            shift
            ;;
        --in-place) set -- "$@" --in-place ;;
        --dry-run | --preview) set -- "$@" --preview ;;
        --json) set -- "$@" --json ;;
        --latest) archive=latest ;;
        --verify | --full) ;;
        -h | --help) help ;;
        -*) refuse "$word" ;;
        *) if [ -z "$host" ]; then host=$word; else archive=$word; fi ;;
    esac
done
shift # the mark; what is left are words for saveos
if [ -n "$list" ]; then
    if [ -n "$host" ]; then run maintenance backup list "$@" "$host"; else run maintenance backup list "$@"; fi
    exit
fi
[ -n "$host" ] || { echo "restore.sh: name the host; see restore.sh --help" >&2; exit 2; }
run maintenance backup restore --wait --archive "${archive:-latest}" "$@" "$host"
