#!/bin/sh
# Passphrases, keys and tokens: make, renew and list them. Values are never shown.
#   manage-secrets.sh [--list] [HOST]                  kinds and ages
#   manage-secrets.sh --generate [FILE]                a new random secret in a new file (0600)
#   manage-secrets.sh --rotate [passphrase|ssh-key|agent-token|controller-ssh-key] [--dry-run] [HOST…]
#   manage-secrets.sh --validate [HOST…]               missing, too old, readable by others
#   manage-secrets.sh --cleanup [--dry-run] [HOST…]    finish interrupted rotations
#   manage-secrets.sh --export-env [FILE]              which variables programs need; with FILE also values (0600)
#   --json prints JSON. Today: saveos maintenance secrets
. "$(dirname "$0")/old-commands.sh"

what=list kind=''
for word; do
    case $word in
        --list | --generate | --rotate | --validate | --cleanup | --export-env) what=${word#--} ;;
        passphrase | ssh-key | agent-token | controller-ssh-key) kind=$word ;;
        --dry-run | --check) options="$options --check" ;;
        --json) options="$options --json" ;;
        -h | --help) help ;;
        -*) refuse "$word" ;;
        *) hosts="$hosts $word" ;;
    esac
done
file=${hosts# }
# shellcheck disable=SC2086
case $what in
    list) run maintenance secrets list $options ${file:+--host "$file"} ;;
    generate) run maintenance secrets generate $options --output "${file:-saveos-secret-$(date +%Y%m%d-%H%M%S)}" ;;
    export-env) run maintenance secrets export-env $options ${file:+--output "$file"} ;;
    rotate) on_hosts maintenance secrets rotate --kind "${kind:-passphrase}" --wait ;;
    *) on_hosts maintenance secrets "$what" --wait ;;
esac
