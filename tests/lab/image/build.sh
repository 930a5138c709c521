#!/bin/bash
# Build (or reuse) the image of a lab host and print its name.   build.sh bookworm|trixie
# bookworm: a usual server (systemd, sshd, cron, Python, sudo). trixie: a bare one, whose only Python is Debian's
# python3 without pip, venv or apt bindings, and without cron.
# One mmdebstrap run from the machine's own Debian mirror and an import: no image registry is needed. The tag is a hash of
# this file, the suite and the week (LAB_EPOCH pins it), so an unchanged recipe costs nothing and packages stay fresh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
suite=${1:-bookworm}
export CONTAINERS_CONF=${CONTAINERS_CONF:-$here/containers.conf}
hash=$({ cat "$here/build.sh"; echo "$suite ${LAB_EPOCH:-$(date +%G-%V)}"; } | sha256sum | cut -c1-12)
image=localhost/saveos-lab:$suite-$hash

packages=systemd,systemd-sysv,dbus,openssh-server,python3,sudo,iproute2,nftables,procps,ca-certificates
case $suite in
    bookworm) packages+=,cron,logrotate,libfaketime,iputils-ping ;;
    trixie) ;;
    *) echo "build.sh: no recipe for '$suite'; known are bookworm and trixie" >&2; exit 2 ;;
esac

exec 9>"/tmp/.saveos-lab-image-$suite.lock"
flock 9
if podman image exists "$image"; then echo "$image"; exit 0; fi
tar=$(mktemp --suffix=.tar)
trap 'rm -f "$tar"' EXIT
mmdebstrap --quiet --mode=root --variant=apt --include="$packages" \
    --aptopt='APT::Install-Recommends "false"' \
    --customize-hook='printf "[Unit]\nBefore=ssh.service\nConditionPathExists=!/etc/ssh/ssh_host_ed25519_key\n[Service]\nType=oneshot\nExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N \"\" -f /etc/ssh/ssh_host_ed25519_key\n[Install]\nWantedBy=multi-user.target\n" > "$1/etc/systemd/system/lab-hostkey.service"' \
    --customize-hook='printf "HostKey /etc/ssh/ssh_host_ed25519_key\nUseDNS no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 100:30:200\n" > "$1/etc/ssh/sshd_config.d/10-lab.conf"' \
    --customize-hook='chroot "$1" systemctl enable -q lab-hostkey.service ssh.service' \
    --customize-hook='chroot "$1" systemctl mask -q systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer man-db.timer e2scrub_all.timer dpkg-db-backup.timer fstrim.timer' \
    --customize-hook='rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/machine-id" && touch "$1/etc/machine-id"' \
    --customize-hook='ln -sf /dev/null "$1/etc/tmpfiles.d/legacy.conf"' \
    "$suite" "$tar" >&2
podman import -q --change 'ENV container=podman' --change 'STOPSIGNAL SIGRTMIN+3' --change 'CMD ["/sbin/init"]' \
    "$tar" "$image" >&2
echo "$image"
