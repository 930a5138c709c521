# A local apt repository for lab hosts, made of nothing but dpkg-deb: one directory per suite below /srv/apt.
# Sourced by tests: package SUITE NAME VERSION [FIELD…], changelog NAME VERSION WORDS, publish SUITE LABEL,
# sources SUITE…
set -e

package() { # a package that holds one file; further arguments are lines of its control file
    suite=$1 name=$2 version=$3; shift 3
    tree=$(mktemp -d)
    mkdir -p "$tree/DEBIAN" "$tree/usr/share/$name" "/srv/apt/$suite"
    echo "$version" > "$tree/usr/share/$name/version"
    { printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: Lab <lab@example.org>\n' "$name" "$version"
      printf '%s\n' "Description: of the lab" "$@"; } > "$tree/DEBIAN/control"
    if [ -n "$POSTINST" ]; then printf '#!/bin/sh\n%s\n' "$POSTINST" > "$tree/DEBIAN/postinst"; chmod 755 "$tree/DEBIAN/postinst"; fi
    chmod 755 "$tree" "$tree/DEBIAN"
    dpkg-deb --root-owner-group -b "$tree" "/srv/apt/$suite/${name}_${version}_all.deb" > /dev/null
    rm -r "$tree"
}

changelog() { # entries of a changelog that apt finds by the Release file's field
    case $1 in lib*) letters=$(printf %.4s "$1") ;; *) letters=$(printf %.1s "$1") ;; esac
    place="/srv/apt/changelogs/$letters/$1/${1}_$2"
    mkdir -p "$(dirname "$place")"
    printf '%s' "$3" > "${place}_changelog"
}

publish() { # the index and Release file of a suite, with its label
    cd "/srv/apt/$1"
    for deb in *.deb; do
        dpkg-deb -f "$deb"
        printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat -c %s "$deb")" "$(sha256sum "$deb" | cut -d' ' -f1)"
    done > Packages
    { printf 'Origin: Lab\nLabel: %s\nSuite: %s\nDate: %s\n' "$2" "$1" "$(date -Ru)"
      printf 'Changelogs: copy:/srv/apt/changelogs/@CHANGEPATH@_changelog\nSHA256:\n'
      printf ' %s %s Packages\n' "$(sha256sum Packages | cut -d' ' -f1)" "$(stat -c %s Packages)"; } > Release
    chmod -R a+rX /srv/apt
    cd /
}

sources() { # only these suites from now on
    rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
    for suite; do echo "deb [trusted=yes] file:/srv/apt/$suite ./"; done > /etc/apt/sources.list
    apt-get -qq update
}
