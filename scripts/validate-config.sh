#!/bin/sh
# See whether hosts are set up as they must be.
#   validate-config.sh [--config] [HOST…]      the backup's configuration
#   validate-config.sh --setup|--compose|--all [HOST…]
#   --fix mends what is safe; with --dry-run it only shows what it would change
#   --json prints JSON. Today: saveos maintenance validation
. "$(dirname "$0")/old-commands.sh"

what=config
for word; do
    case $word in
        --config | --setup | --compose | --all) what=${word#--} ;;
        --validate | --auto) ;;
        --fix) options="$options --fix all" ;;
        --dry-run | --check) options="$options --check" ;;
        --json) options="$options --json" ;;
        -h | --help) help ;;
        -*) refuse "$word" ;;
        *) hosts="$hosts $word" ;;
    esac
done
on_hosts maintenance validation "$what" --wait
