#!/bin/sh
# Free space on hosts.
#   cleanup-project.sh [--auto] [--dry-run] [HOST…]        every rule: caches, logs, temporary files, images
#   cleanup-project.sh --cache|--logs|--temp|--containers  only rules of these kinds; several may be named
#   --dry-run changes nothing and says what would be freed; --json prints JSON. Today: saveos maintenance cleanup
. "$(dirname "$0")/old-commands.sh"

kinds=
for word; do
    case $word in
        --auto | --all | --full) ;;
        --cache) kinds="$kinds cache" ;;
        --logs) kinds="$kinds logs" ;;
        --temp | --tmp) kinds="$kinds temp" ;;
        --containers | --docker) kinds="$kinds containers" ;;
        --dry-run | --check) options="$options --check" ;;
        --json) options="$options --json" ;;
        -h | --help) help ;;
        -*) refuse "$word" ;;
        *) hosts="$hosts $word" ;;
    esac
done
worst=0
for kind in ${kinds:-run}; do
    on_hosts maintenance cleanup "$kind" --wait || { code=$?; [ $worst -ne 0 ] && [ $worst -ne 3 ] || worst=$code; }
done
exit $worst
