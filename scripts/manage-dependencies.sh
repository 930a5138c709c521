#!/bin/sh
# See and install updates of what hosts depend on.
#   manage-dependencies.sh [--audit] [HOST…]              report only
#   manage-dependencies.sh --security [--dry-run] [HOST…] install what mends security
#   manage-dependencies.sh --update [--dry-run] [HOST…]   install all updates
#   manage-dependencies.sh --repair [HOST…]               end an update that was interrupted
#   One host goes first, then a few at a time; the first that is not well afterwards ends it.
#   --json prints JSON. Today: saveos maintenance dependencies
. "$(dirname "$0")/old-commands.sh"

what=audit
for word; do
    case $word in
        --audit | --outdated | --list) what=audit ;;
        --update | --upgrade) what=update ;;
        --security) what=security ;;
        --repair) what=repair ;;
        --auto) ;;
        --dry-run | --check) options="$options --check" ;;
        --json) options="$options --json" ;;
        -h | --help) help ;;
        -*) refuse "$word" ;;
        *) hosts="$hosts $word" ;;
    esac
done
if [ "$what" = audit ]; then # changes nothing anyway
    case $options in *--json*) options=--json ;; *) options= ;; esac
fi
on_hosts maintenance dependencies "$what" --wait
