# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SSH public keys and authorized_keys as data: parsed and written anew, never pasted. No I/O."""

from __future__ import annotations

import base64
import binascii
import re

TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
MARK = "saveos:"
ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")
QUOTA = re.compile(r"\d+(\.\d+)?[KMGTP]?", re.IGNORECASE)


def parse_key(text):
    """`type base64` of one public key; options, comments and anything else are dropped. ValueError when it is
    none."""
    words = str(text).split()
    if len(words) < 2 or words[0] not in TYPES or len(str(text).strip().splitlines()) != 1:
        raise ValueError("it is not one SSH public key of type ed25519, ecdsa or rsa")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except binascii.Error as error:
        raise ValueError("its base64 is broken") from error
    length = int.from_bytes(blob[:4], "big")
    if blob[4 : 4 + length] != words[0].encode() or len(blob) <= 4 + length:
        raise ValueError("its type and its content differ")
    return f"{words[0]} {base64.b64encode(blob).decode()}"


def check_id(repository_id):
    """A repository's id as it may appear in a path and a comment; ValueError otherwise."""
    if not ID.fullmatch(repository_id):
        raise ValueError(
            f"repository id {repository_id!r} may hold only letters, digits, dot, dash and underscore"
        )
    return repository_id


def authorized_line(borg, path, entry):
    """The line by which one host's key serves exactly one repository."""
    if re.search(r'["\\\s]', borg + path):
        raise ValueError(f"{borg} and {path} may hold no blanks, quotes or backslashes")
    command = [borg, "serve"]
    if entry.get("append_only", True):
        command.append("--append-only")
    command += ["--restrict-to-repository", path]
    quota = str(entry.get("quota") or "")
    if quota:
        if not QUOTA.fullmatch(quota):
            raise ValueError(
                f"quota {quota!r} must be a number of bytes, or one with K, M, G or T, such as 500G"
            )
        command += ["--storage-quota", quota]
    repository = check_id(entry["id"])
    try:
        key = parse_key(entry["public_key"])
    except ValueError as error:
        raise ValueError(f"the public key for repository {repository} is refused: {error}") from error
    return f'command="{" ".join(command)}",restrict {key} {MARK}{repository}'


def comment_of(line):
    """The repository id of one of our lines, or an empty string for any other line."""
    words = line.split()
    last = words[-1] if words and not line.startswith("#") else ""
    return last[len(MARK) :] if last.startswith(MARK) else ""


def refused(text, lines, absent):
    """By repository, why a line must stay out: its key serves another repository. What is there already counts
    first, so a host that tells another's key as its own shuts nobody out but itself."""
    wanted = {comment_of(line) for line in lines}
    present = set(text.splitlines())
    owner, found = {}, {}
    for line in present:
        if comment_of(line) and comment_of(line) not in wanted and comment_of(line) not in absent:
            owner[line.split()[-2]] = comment_of(line)
    for line in sorted(lines, key=lambda each: each not in present):
        repository = comment_of(line)
        served = owner.setdefault(line.split()[-2], repository)
        if served != repository:
            found[repository] = (
                f"one key cannot serve the repositories {served} and {repository}: put the second one on "
                f"another server, or take the old one's access away with server_repositories_absent: [{served}]"
            )
    return found


def merge(text, lines, absent, beside=()):
    """authorized_keys with our lines set and those of `absent` gone; every other line stays where it is.

    `beside` are second lines of repositories in `lines`: new keys of hosts that change theirs.

    ValueError when two hosts want one repository, because only one may write to it. What `refused` names must
    not be among the lines, because sshd takes only the first line of a key.
    """
    wanted = {}
    for line in lines:
        if wanted.setdefault(comment_of(line), line) != line:
            raise ValueError(
                f"two hosts have the repository {comment_of(line)}: give each host an id of its own in "
                "agent_repositories"
            )
    kept, fresh = [], {repository: [line] for repository, line in wanted.items()}
    for line in beside:
        if line not in fresh[comment_of(line)]:
            fresh[comment_of(line)].append(line)
    for line in text.splitlines():
        repository = comment_of(line)
        if repository in absent or (repository in wanted and repository not in fresh):
            continue  # taken away, or a second line of it: an old key that would still open it
        kept += fresh.pop(repository, [line])
    kept += [line for both in fresh.values() for line in both]
    return "".join(line + "\n" for line in kept)
