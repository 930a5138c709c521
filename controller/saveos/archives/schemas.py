"""What travels about archives."""

import uuid
from datetime import datetime

from pydantic import BaseModel


class ArchiveOut(BaseModel):
    """One archive, as its host reported it. Sizes in bytes, duration in seconds."""

    id: uuid.UUID
    host_id: uuid.UUID
    host: str
    repository_id: uuid.UUID
    borg_id: str
    name: str
    started_at: datetime
    finished_at: datetime | None
    duration: float | None
    files: int | None
    original_size: int | None
    compressed_size: int | None
    deduplicated_size: int | None
    check_state: str
    run_id: uuid.UUID | None
