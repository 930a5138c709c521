#!/bin/sh
# Back hosts up, prove archives, list them.
#   backup.sh [--full|--incremental] [HOST…]   back up now and wait (Borg always stores only what is new)
#   backup.sh --verify [HOST…]                 restore a sample of the newest archives and compare it
#   backup.sh --check [HOST…]                  check repositories where they are stored
#   backup.sh --list [HOST]                    list archives
#   --json prints JSON. Today: saveos maintenance backup, saveos drills run, saveos maintenance check
. "$(dirname "$0")/old-commands.sh"

what=create
for word; do
    case $word in
        --full | --incremental | --auto) what=create ;;
        --verify) what=verify ;;
        --check) what=check ;;
        --list) what=list ;;
        --json) options="$options --json" ;;
        -h | --help) help ;;
        -*) refuse "$word" ;;
        *) hosts="$hosts $word" ;;
    esac
done
# shellcheck disable=SC2086
case $what in
    create) on_hosts maintenance backup create --wait ;;
    verify) on_hosts drills run --wait ;;
    check) on_hosts maintenance check --wait ;;
    list) run maintenance backup list $options $hosts ;;
esac
