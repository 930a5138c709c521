"""What a backup that succeeded lacks all the same: unread paths, no files at all, or most of what there was."""

import re

from saveos.checkins.schemas import RecordTold

# Borg's warning of a path that it could not read; one that went meanwhile (errno 2) is missing for good reason
UNREAD = re.compile(r"\[Errno (?!2\])\d+\]")
OWN_FILES = 1  # of SaveOS itself in each archive: the canary
SHRUNK, WORTH = 0.1, 10 * 1024 * 1024  # share of the size before, and bytes from which on that says something


def gap(record: RecordTold, size_before: int | None) -> str:
    """Return in one sentence what a backup with an archive lacks, empty when nothing; sizes are bytes."""
    archives = [result.archive for result in record.results if result.archive]
    if record.kind != "backup" or record.state not in ("succeeded", "warning") or not archives:
        return ""
    unread = [line for result in record.results for line in result.warnings if UNREAD.search(line)]
    if unread:
        others = f" (and {len(unread) - 1} more)" if len(unread) > 1 else ""
        return f"The backup could not read {unread[0][:1000]}{others}"
    if any(each.nfiles is not None and each.nfiles <= OWN_FILES for each in archives):
        return (
            "The archive holds no file of the host: its sources are empty, such as a file system that is not "
            "mounted, or the policy's excludes leave everything out."
        )
    sizes = [each.original_size for each in archives if each.original_size is not None]
    if sizes and size_before and size_before >= WORTH and min(sizes) < size_before * SHRUNK:
        return f"The archive holds {min(sizes)} bytes, the one before it {size_before}: see what is missing."
    return ""
