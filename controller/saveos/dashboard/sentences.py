"""Services' sentences on pages: they are raised in English, and translated here where people read them.

A template stands for all sentences that a service makes with it; `{name}` is whatever it puts in. A hint for
those who write requests (": see GET …") is left out of a translation. What has no template is shown as it is.
"""

import re
from functools import cache

from saveos.core.i18n import DEFAULT, gettext, language, mark

SERVICES = (
    mark("there is a host {name} already: choose another name"),
    mark("there is a host {name} already: choose another name, or change it"),
    mark("there is a group {name} already: choose another name"),
    mark("there is a policy {name} already: choose another name"),
    mark("there is a schedule {name} already: choose another name"),
    mark("there is a channel {name} already: choose another name"),
    mark("there is a user {name} already: choose another name"),
    mark("there is no host {name}"),
    mark("there is no group {name}"),
    mark("there is no policy {name}"),
    mark("there is no schedule {name}"),
    mark("neither of the archives has a folder {path}: compare the one above"),
    mark("this takes too long: say three letters of the name or more, its folder, or a host"),
    mark("the catalogue is busy taking an archive over: try again in a minute"),
    mark("a part of the catalogue cannot be read: build it anew with saveos archives rebuild REPOSITORY"),
    mark(
        "its listing could not be taken over, the controller's log says why:"
        " its host sends it again after saveos archives rebuild REPOSITORY"
    ),
    mark(
        "the policy {name} keeps names of files on {host}: browse its archives there,"
        " or set the policy's catalogue to full"
    ),
    mark("{name}'s own variable {variable} keeps names of files there: take it away to have them here"),
    mark("files are gone since the archive before; the host lists all"),
    mark("it is older than the newest archive in the catalogue; rebuild the repository's part"),
    mark("its listing was lost; the host sends it again"),
    mark("its listing refers to an archive that is not indexed; the host sends all"),
    mark("this archive is not in the catalogue: browse it on the host, or rebuild the catalogue"),
    mark("the catalogue is taking an archive over: try again in a minute"),
    mark("this archive has no folder {path}: look in the one above, or another archive"),
    mark("the archives are of two repositories: choose two of one host's"),
    mark("say what to look for: a part of a name, a path, or a glob such as *.conf"),
    mark("its provisioning stumbled, the controller's log says why"),
    mark(
        "content of archives may not pass through the controller (the setting content_through_controller is"
        " off): restore to a directory of the host, and copy it from there"
    ),
    mark("there is no channel {name}"),
    mark(
        "the commands of policy {name} do not open with this controller's key:"
        " restore the controller with the key that sealed them, or make the policy anew"
    ),
    mark("a schedule has five fields, such as 0 2 * * *; {expression} has {count}"),
    mark("name a day of month or a day of week, not both: cron and systemd disagree on both"),
    mark("the schedule {expression} never fires: that day does not exist"),
    mark("{text} names a time zone: set it as the zone, not in the schedule"),
    mark(
        "{text} is no schedule: use five fields such as 0 2 * * *,"
        " or a systemd calendar such as Mon..Fri *-*-* 02:00"
    ),
    mark("{text} names seconds: a schedule goes by minutes, so end it with :00 or nothing"),
    mark("{text} is no day of week: use Mon, Tue..Fri or Sat,Sun"),
    mark("{text} is no time zone: use a name such as Europe/Paris, or UTC"),
    mark("The controller was stopped."),
    mark("The controller was stopped: {count} times until {until}."),
    mark("The controller was stopped: at least {count} times until {until}."),
    mark("name hosts or groups, or say all"),
    mark("none of these hosts can run {name}: provision one first"),
    mark("{name} is no storage server"),
    mark("{name} has a repository there already"),
    mark("{name} is no agent, so it needs no repository"),
    mark("{name} is {state} already"),
    mark("{name} is {state}: provision or resume it first"),
    mark("its repository has {name} no more: choose another archive"),
    mark("The file is no text. Restore it to look at it."),
    mark("The file is larger than {size} KiB or {count} lines. Restore it to a directory to look at it."),
    mark("It is no regular file in {name}. Choose a regular file."),
    mark("It is no regular file now. Choose a regular file."),
    mark("It is a symbolic link now. Choose a regular file."),
    mark("Neither of them holds this file. Choose one that an archive holds."),
    mark("{name} does not hold this file. Choose an archive that holds it."),
    mark("a preview looks at {name} itself: there is none for another host"),
    mark("{name} is SaveOS's own schedule: switch it off instead"),
    mark("this needs the right {right}: ask an admin for it, or use another token"),
    mark("this needs the right {right}: ask an admin for it"),
    mark("{count} hosts use this policy: give them another one first"),
    mark("this is the default policy: make another one the default first"),
    mark("make another policy the default instead"),
    mark("this is the last admin: make another one first"),
    mark("the current password is wrong"),
    mark("the new password must be another one"),
    mark("choose a time in the future, within a year"),
    mark("the alert is resolved already: its cause is gone"),
    mark("the host must be an agent, a storage server, or both"),
    mark("a storage server is named twice: name each once"),
    mark("a local repository needs a path on the host"),
    mark("a local repository has no server: leave it out"),
    mark("a group gives its hosts this policy: give the group another one first"),
    mark("the option {name} is not allowed in a channel's URL: leave it out"),
    mark("the {kind} key is not valid base64: paste the whole line"),
    mark("the {kind} key is cut off or of another type: paste the whole line"),
    mark("a host has at most {count} keys"),
    mark("a host's name has letters, digits, dots, dashes and underscores, 253 at most"),
    mark("the address must be an IP address or a host name, without port or user"),
    mark("the user must be a Unix login name, such as root or backup"),
    mark("the path must be absolute, such as /etc, on one line"),
    mark("a tag has letters, digits and . _ : - (63 at most)"),
    mark("the name must not be empty or hold control characters"),
    mark("the time must be between 1990 and 2200"),
    mark("a quota looks like 500G or 2T; empty is none"),
    mark("the text holds a NUL character: remove it"),
    mark("in place there is no other destination: leave one of them out"),
    mark("everything came from below /: ask for a restore in place"),
    mark("the channel {name} tells of the hosts of {group}: take the group off it first"),
    mark("only the tenant that the controller was installed with may have its machine: use ssh"),
    mark("in place needs a rule: conflict skip, rename, overwrite or newer"),
    mark("the path / cannot be chosen: leave paths out for the whole archive"),
    mark(
        "The destination {path} exists and is no empty directory. Name a path that does not exist,"
        " or an empty directory, or a rule for what is there (--conflict)."
    ),
    mark("{path} cannot be written. Name another destination, or run this as root."),
    mark("None of the paths is in archive {name}. Browse the archive."),
    mark(
        "{size} bytes are to be restored, and the file system of {path} has {free} free."
        " Free space, name a destination on another file system, or choose less."
    ),
)
HOSTS = (  # what failed in a drill, a restore, a rebuild or a guard's check, as their hosts and the worker tell
    mark("the canary has not the content that it had at that backup"),
    mark("the canary is not in the archive"),
    mark("the archive holds no file of the host's sources"),
    mark("Borg did not restore it"),
    mark("its content is not that of the live file, which has not changed since"),
    mark("The repository has no archive yet."),
    mark("A drill needs {size} bytes below {path}, and {free} are free."),
    mark("nothing could be restored"),
    mark("on {host}"),
    mark(
        "{host} has {files} files of {size} bytes, {sent} files of {bytes} bytes were sent,"
        " or their hashes differ"
    ),
    mark("drills cannot load dumps of MongoDB"),
    mark("there is no room to load {size} bytes: {free} are free"),
    mark("this host's Python has no sqlite3"),
    mark("the dump ends in the middle"),
    mark("it holds no database {name}"),
    mark("there is no user {name} to run a scratch server as"),
    mark("the scratch server did not start"),
    mark("it took longer than {count} hours"),
    mark("this host has no {program}"),
    mark("was not restored as the archive holds it"),
    mark("a directory of that name is in its way"),
    mark("a file or link of that name is in its way"),
    mark("is not in the archive"),
    mark("Permission denied"),
    mark("Operation not permitted"),
    mark("No space left on device"),
    mark("Disk quota exceeded"),
    mark("Input/output error"),
    mark("Read-only file system"),
    mark("No such file or directory"),
    mark("File name too long"),
    mark("stumbled, the controller's log says why"),
    mark("the job of its step {step} was removed meanwhile: ask for it anew"),
    mark("its job ended as {state}"),
    mark("the archive's host did not tell what it sent"),
    mark("{got} of {sent} entries and {size} of {bytes} bytes arrived"),
    mark("the backup counted {count} files"),
    mark("{count} files have the archive's SHA-256"),
    mark("{count} could not be restored"),
    mark("it did not tell how it is"),
    mark("it has no critical finding"),
    mark("segment {number}"),
    mark("going on at segment {number}"),
    mark("it does not begin as a segment"),
    mark("it ends inside an entry at {place}"),
    mark("the entry at {place} is none"),
    mark("the checksum of the entry at {place} is wrong"),
    mark("it does not end in its commit"),
    mark("it cannot be read"),
    mark("the repository is gone"),
    mark("nothing was ever committed"),
    mark("{count} segments that the index names are missing"),
    mark("{count} segments are whole"),
    mark("its index is cut off"),
    mark("its index is not one of Borg 1"),
    mark("its config cannot be read"),
    mark("its hints cannot be read"),
)
MODELS = (  # pydantic's own
    mark("Field required"),
    mark("Input should be a valid string"),
    mark("Input should be a valid integer, unable to parse string as an integer"),
    mark("Input should be a valid number, unable to parse string as a number"),
    mark("Input should be greater than or equal to {least}"),
    mark("Input should be greater than {limit}"),
    mark("Input should be less than or equal to {most}"),
    mark("Input should be less than {limit}"),
    mark("String should have at least {least} characters"),
    mark("String should have at least {least} character"),
    mark("String should have at most {most} characters"),
    mark("Input should be {choices}"),
)
PART = "(?!: )."  # a host says "where: why": that is two parts
HINT = r"(?:: see (?:GET|saveos) .*)?"


def sentence(text: str) -> str:
    """Return what a service says in the language of the page, as a sentence."""
    if language() != DEFAULT:
        text = _translated(text)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _translated(text: str) -> str:
    plain = (text[:1].lower() + text[1:]).removesuffix(".")  # as it was before it was kept as a sentence
    return _filled(_patterns(*SERVICES, *MODELS), text, plain) or text


def told(text: str) -> str:
    """Return a part of what a host tells in the language of the page; "" where nobody translated it."""
    return _filled(_patterns(*HOSTS, within=PART), text) if language() != DEFAULT else ""


def _filled(patterns: tuple[tuple[re.Pattern[str], str], ...], *texts: str) -> str:
    for pattern, template in patterns:
        for text in texts:
            if found := pattern.fullmatch(text):
                return gettext(template).format(**found.groupdict())
    return ""


@cache
def _patterns(*templates: str, within: str = ".") -> tuple[tuple[re.Pattern[str], str], ...]:
    """Return what recognises each template; those with the most text of their own come first.

    `within` is what a character of a placeholder's text is.
    """
    made = []
    for template in sorted(templates, key=lambda each: -len(re.sub(r"\{\w+\}", "", each))):
        parts = re.split(r"\{(\w+)\}", template)
        wanted = "".join(
            f"(?P<{part}>(?:{within}){{1,300}}?)" if place % 2 else re.escape(part)
            for place, part in enumerate(parts)
        )
        made.append((re.compile(wanted + HINT), template))
    return tuple(made)
