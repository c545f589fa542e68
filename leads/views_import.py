"""The pages of imports: upload, preview with the columns to correct, progress, and what was remarked on rows."""

from __future__ import annotations

import csv
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from agents.models import Department, Member
from leads.decoding import ReadError
from leads.department import SALES
from leads.forms import UploadForm
from leads.import_jobs import discard_job, discard_old_drafts, is_one_at_work, resume_job, start_job, store_upload
from leads.import_preview import list_columns, preview_file
from leads.mapping import FIELDS, TARGETS, MappingError, check_mapping, recognise
from leads.models import ImportJob
from runs import database
from runs.access import access_of, get_visible, require, signed_in
from runs.examples import EXAMPLES, held_items, wants_examples
from runs.views.answers import answer, is_htmx
from runs.views.estimates import estimate_new
from runs.views.shown import Shown

Role = Member.Role
Status = ImportJob.Status
SHOWN_JOBS = 20
SHOWN_REMARKS = 100
LEASE_IS_LATE = Shown("interrupted", "warning", "alert-triangle")
_SHOWN = {
    Status.DRAFT: Shown("not started", "neutral", "circle-dashed"),
    Status.WAITING: Shown("waiting for its turn", "progress", "clock", is_live=True),
    Status.RUNNING: Shown("running", "progress", "loader-2", is_live=True),
    Status.DONE: Shown("done", "good", "circle-check"),
    Status.FAILED: Shown("failed", "bad", "circle-x"),
}


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def import_upload(request: HttpRequest) -> HttpResponse:
    """Upload a file: it is kept, and its preview is the next page. Below: the latest imports."""
    departments = _departments(request)
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST":
        department = _chosen(request, departments)
        if form.is_valid() and (job := _store(request, form, department)):
            return redirect("leads:import_job", job.pk)
    jobs = ImportJob.objects.filter(department__in=departments).select_related("department", "user")
    context = {
        "form": form,
        "departments": departments,
        "jobs": [(job, show_job(job)) for job in jobs.order_by("-pk")[:SHOWN_JOBS]],
    }
    return render(request, "leads/import.html", context, status=422 if form.errors else 200)


@signed_in
@require_safe
def import_job(request: HttpRequest, pk: int) -> HttpResponse:
    """One import: its preview while it is not started, then its progress and what was rejected."""
    job = _get_job(request, pk)
    return render(request, "leads/import_job.html", _context(job))


@signed_in
@require_safe
def import_progress(request: HttpRequest, pk: int) -> HttpResponse:
    """The changing part of the page of an import that was started."""
    return render(request, "leads/_import_progress.html", _progress(_get_job(request, pk)))


@signed_in
@require_POST
def import_map(request: HttpRequest, pk: int) -> HttpResponse:
    """Take over the columns as corrected; to htmx the preview with them."""
    job = _get_job(request, pk)
    _save_mapping(request, job)
    if is_htmx(request):
        return render(request, "leads/_import_preview.html", _context(job))
    return redirect("leads:import_job", job.pk)


@signed_in
@require_POST
def import_start(request: HttpRequest, pk: int) -> HttpResponse:
    """Start the import with the columns as they stand in the form. Pressed twice, it starts once."""
    job = _get_job(request, pk)
    url = job.get_absolute_url()
    _save_mapping(request, job)
    if problem := _mapping_problem(job):
        return answer(request, problem, changed=False, url=url)
    if not start_job(job=job, examples_first=request.POST.get("examples") == "yes"):
        return answer(request, "This import was started already.", changed=False, url=url)
    return answer(request, "The import is started. This page follows it.", changed=True, url=url)


@signed_in
@require_POST
def import_discard(request: HttpRequest, pk: int) -> HttpResponse:
    """Throw an upload away that was not started."""
    job = _get_job(request, pk)
    url = reverse("leads:import")
    if not discard_job(job=job):
        return answer(request, "This import was started already.", changed=False, url=job.get_absolute_url())
    return answer(request, f"{job.file_name} is discarded.", changed=True, url=url)


@signed_in
@require_POST
def import_resume(request: HttpRequest, pk: int) -> HttpResponse:
    """Queue an import again whose worker has died."""
    job = _get_job(request, pk)
    if not resume_job(job=job):
        text = "There is nothing to continue: the import has ended, or a worker is at it."
        return answer(request, text, changed=False, url=job.get_absolute_url())
    return answer(request, "The import is queued again.", changed=True, url=job.get_absolute_url())


@signed_in
@require_safe
def import_remarks(request: HttpRequest, pk: int) -> HttpResponse:
    """Every rejected row and every note as CSV, in the order of the rows."""
    job = _get_job(request, pk)
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="import-{job.pk}-remarks.csv"'
    writer = csv.writer(response)
    writer.writerow(("row", "kind", "remark"))
    remarks = job.remarks.order_by("row_number", "pk").values_list("row_number", "kind", "text")
    writer.writerows(remarks.iterator(chunk_size=1_000))
    return response


def show_job(job: ImportJob) -> Shown:
    """The true state of an import: ``running`` only while a worker holds its lease."""
    is_late = job.is_active and job.lease_expires_at is not None and job.lease_expires_at < database.now()
    if is_late and job.status == Status.WAITING and is_one_at_work():
        is_late = False  # it waits for the other one, however long that takes
    return LEASE_IS_LATE if is_late else _SHOWN[Status(job.status)]


# --- What the views share ----------------------------------------------------------------------------------


def _departments(request: HttpRequest) -> list[Department]:
    """The sales departments into which the person may import; 404 if there is none."""
    access = access_of(request)
    found = [d for d in access.shown if d.kind == SALES.kind and access.can(d.pk, Role.OPERATOR)]
    if not found:
        raise Http404("Importing leads takes the role of an operator.")
    return found


def _chosen(request: HttpRequest, departments: list[Department]) -> Department:
    """The department of the form; it may be left out where there is one only."""
    slug = request.POST.get("department", "")
    if not slug and len(departments) == 1:
        return departments[0]
    found = next((department for department in departments if department.slug == slug), None)
    if found is None:
        raise Http404("There is no such department.")
    return found


def _store(request: HttpRequest, form: UploadForm, department: Department) -> ImportJob | None:
    discard_old_drafts()
    file = form.cleaned_data["file"]
    try:
        return store_upload(
            department=department,
            user=require(request, department.pk, Role.OPERATOR),
            chunks=file.chunks(),
            file_name=file.name,
            source=form.cleaned_data["source"],
        )
    except ReadError as error:
        form.add_error("file", str(error))
        return None


def _get_job(request: HttpRequest, pk: int) -> ImportJob:
    job = get_visible(request, ImportJob.objects.select_related("department", "user"), pk=pk)
    require(request, job.department_id, Role.OPERATOR)
    return job


def _save_mapping(request: HttpRequest, job: ImportJob) -> None:
    """``column-0``, ``column-1`` … of the form, by position: names of columns are no names of form fields."""
    if job.status != Status.DRAFT:
        return
    try:
        columns = [column.name for column in list_columns(job.path, {})]
    except (ReadError, OSError):
        return
    given = {name: request.POST.get(f"column-{position}", "") for position, name in enumerate(columns)}
    mapping = {name: target for name, target in given.items() if target in TARGETS}
    if mapping:
        job.mapping = mapping
        job.save(update_fields=["mapping"])


def _mapping_problem(job: ImportJob) -> str:
    if job.status != Status.DRAFT:
        return ""
    try:
        columns = [column.name for column in list_columns(job.path, {})]
        check_mapping(job.mapping, columns)
    except (ReadError, MappingError) as error:
        return str(error)
    except OSError:
        return "The uploaded file is gone. Upload it again."
    return ""


def _context(job: ImportJob) -> dict[str, Any]:
    return _preview(job) if job.status == Status.DRAFT else _progress(job)


def _preview(job: ImportJob) -> dict[str, Any]:
    context: dict[str, Any] = {"job": job, "shown": show_job(job), "targets": TARGETS, "fields": FIELDS}
    try:
        preview = preview_file(job.path, department=job.department, source=job.source, mapping=job.mapping)
        context |= {"estimate": estimate_new(job.department, preview.counts["created"]), "examples": EXAMPLES}
        held = held_items(job.department).count()
        # Behind examples that are still to be judged, each new one waits, however few there are.
        is_enough = preview.counts["created"] > (0 if held else EXAMPLES)
        context |= {"held": held, "examples_first": is_enough and wants_examples(job.department)}
        return context | {"preview": preview, "columns": preview.columns, "problem": preview.problem}
    except MappingError as error:
        columns = list_columns(job.path, {})
        mapping = recognise([column.name for column in columns]) | job.mapping
        return context | {"columns": list_columns(job.path, mapping), "problem": str(error)}
    except ReadError as error:
        return context | {"problem": str(error)}
    except OSError:
        return context | {"problem": "The uploaded file is gone. Discard this import and upload it again."}


def _progress(job: ImportJob) -> dict[str, Any]:
    shown = show_job(job)
    remarks = list(job.remarks.order_by("row_number", "pk")[: SHOWN_REMARKS + 1])
    return {
        "job": job,
        "shown": shown,
        "is_interrupted": shown is LEASE_IS_LATE,
        "remarks": remarks[:SHOWN_REMARKS],
        "has_more": len(remarks) > SHOWN_REMARKS,
    }
