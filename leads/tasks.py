"""Tasks of the queue: thin, they take ids."""

from __future__ import annotations

from leads import import_jobs, importing


def import_file(job_id: int) -> None:
    """Work on an uploaded file of leads."""
    importing.work_on(job_id)


def tidy_imports() -> None:
    """Once a minute: continue imports whose worker died, and throw away uploads nobody started."""
    import_jobs.resume_stalled()
    import_jobs.discard_old_drafts()
