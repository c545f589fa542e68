"""Upload, preview, start and progress in the browser."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from django_q.models import OrmQ

from agents.models import Department, Member
from leads import forms
from leads.importing import work_on
from leads.models import ImportJob, Lead
from tests.factories import make_department, make_lead, make_user

pytestmark = pytest.mark.django_db
UPLOAD = "/leads/import/"
TABLE = b"Kontakt;E-Mail;Firma\nAnna;anna@x.example;Acme <b>\nBo;nobody;Bolt\n"
ACTIONS = ("columns", "start", "discard", "resume")


@pytest.fixture
def sales(settings: Any, tmp_path: Path) -> Department:
    settings.BASE_DIR = tmp_path
    return make_department()


@pytest.fixture
def olga(sales: Department) -> User:
    return make_user("olga", department=sales, role=Member.Role.OPERATOR)


@pytest.fixture
def browser(olga: User) -> Client:
    return _signed_in(olga)


def _signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def _upload(browser: Client, content: bytes = TABLE, **fields: str) -> Any:
    return browser.post(UPLOAD, {"file": SimpleUploadedFile("people.csv", content), **fields})


def _job(browser: Client, content: bytes = TABLE) -> ImportJob:
    assert _upload(browser, content).status_code == 302
    return ImportJob.objects.latest("pk")


def _page(browser: Client, job: ImportJob) -> str:
    response = browser.get(job.get_absolute_url())
    assert response.status_code == 200
    return str(response.content.decode())


def test_an_upload_leads_to_its_preview_and_imports_nothing(browser: Client, olga: User) -> None:
    response = _upload(browser, source="fair")
    job = ImportJob.objects.get()
    assert response["Location"] == f"/leads/import/{job.pk}/"
    assert (job.user, job.source, job.status) == (olga, "fair", "draft")
    page = _page(browser, job)
    assert "anna@x.example" in page
    assert "Acme &lt;b&gt;" in page
    assert "&#x27;nobody&#x27; is not a valid e-mail address" in page
    assert "All 2 rows checked" in page
    assert not Lead.objects.exists()


def test_columns_can_be_corrected_in_the_preview(browser: Client) -> None:
    job = _job(browser)
    chosen = {"column-0": "title", "column-1": "email", "column-2": "attribute"}
    fragment = browser.post(f"/leads/import/{job.pk}/columns/", chosen, headers={"HX-Request": "true"})
    assert fragment.status_code == 200
    assert fragment.content.decode().lstrip().startswith('<form id="import-preview"')
    job.refresh_from_db()
    assert job.mapping == {"Kontakt": "title", "E-Mail": "email", "Firma": "attribute"}
    assert browser.post(f"/leads/import/{job.pk}/columns/", chosen)["Location"] == job.get_absolute_url()


def test_the_fragment_is_what_the_page_shows(browser: Client) -> None:
    job = _job(browser)
    chosen = {"column-0": "name", "column-1": "email", "column-2": "company"}
    fragment = browser.post(f"/leads/import/{job.pk}/columns/", chosen, headers={"HX-Request": "true"})
    body = fragment.content.decode().split('name="csrfmiddlewaretoken"')[1].split(">", 1)[1].strip()
    assert body in _page(browser, job)
    browser.post(f"/leads/import/{job.pk}/start/", chosen)
    work_on(job.pk)
    progress = browser.get(f"/leads/import/{job.pk}/progress/").content.decode().strip()
    assert progress in _page(browser, job)


def test_without_an_address_column_nothing_starts_and_the_page_says_why(browser: Client) -> None:
    job = _job(browser)
    chosen = {"column-0": "name", "column-1": "ignore", "column-2": "company"}
    response = browser.post(f"/leads/import/{job.pk}/start/", chosen, follow=True)
    assert "No column holds an e-mail address" in response.content.decode()
    job.refresh_from_db()
    assert job.status == "draft"
    assert not OrmQ.objects.exists()


def test_starting_imports_in_the_background_with_the_columns_of_the_form(browser: Client) -> None:
    job = _job(browser)
    chosen = {"column-0": "title", "column-1": "email", "column-2": "company"}
    response = browser.post(f"/leads/import/{job.pk}/start/", chosen, follow=True)
    page = response.content.decode()
    assert "waiting for its turn" in page
    assert f'hx-get="/leads/import/{job.pk}/progress/"' in page
    assert OrmQ.objects.count() == 1
    again = browser.post(f"/leads/import/{job.pk}/start/", chosen, follow=True)
    assert "started already" in again.content.decode()
    assert OrmQ.objects.count() == 1

    work_on(job.pk)
    assert Lead.objects.get().title == "Anna"
    page = _page(browser, job)
    assert "hx-get" not in page.split('id="main"')[1]
    assert "is not a valid e-mail address" in page
    remarks = browser.get(f"/leads/import/{job.pk}/remarks.csv")
    lines = remarks.getvalue().decode().splitlines()
    assert lines[0] == "row,kind,remark"
    assert lines[1].startswith("3,rejected,")


def test_an_interrupted_import_says_so_and_can_be_continued(browser: Client) -> None:
    job = _job(browser)
    browser.post(f"/leads/import/{job.pk}/start/")
    ImportJob.objects.update(status="running", lease_expires_at=timezone.now() - timedelta(minutes=1))
    OrmQ.objects.all().delete()
    page = _page(browser, job)
    assert "interrupted" in page
    assert "Continue the import" in page
    browser.post(f"/leads/import/{job.pk}/resume/")
    assert OrmQ.objects.count() == 1
    again = browser.post(f"/leads/import/{job.pk}/resume/", follow=True)
    assert "nothing to continue" in again.content.decode()
    assert OrmQ.objects.count() == 1


def test_a_draft_can_be_discarded(browser: Client) -> None:
    job = _job(browser)
    assert browser.post(f"/leads/import/{job.pk}/discard/")["Location"] == UPLOAD
    assert not ImportJob.objects.exists()
    assert not job.path.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "The file is empty."), (b"%PDF-1.7", "This is a PDF."), (b"a@x.example,Anna\n", "has no header")],
)
def test_a_file_that_is_no_table_is_refused_on_the_page(browser: Client, content: bytes, words: str) -> None:
    response = _upload(browser, content)
    assert response.status_code == 422
    assert words in response.content.decode()
    assert not ImportJob.objects.exists()


def test_a_file_that_is_too_large_is_refused(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "MAX_UPLOAD_BYTES", 10)
    response = _upload(browser)
    assert response.status_code == 422
    assert "larger than 50 MB" in response.content.decode()


def test_a_preview_of_a_file_that_is_gone_says_so(browser: Client) -> None:
    job = _job(browser)
    job.path.unlink()
    assert "The uploaded file is gone" in _page(browser, job)
    response = browser.post(f"/leads/import/{job.pk}/start/", follow=True)
    assert "The uploaded file is gone" in response.content.decode()


def test_strangers_are_sent_to_the_login(sales: Department, browser: Client) -> None:
    job = _job(browser)
    for url in (UPLOAD, job.get_absolute_url(), f"/leads/import/{job.pk}/progress/"):
        assert Client().get(url)["Location"].startswith("/login/")
    for action in ACTIONS:
        assert Client().post(f"/leads/import/{job.pk}/{action}/")["Location"].startswith("/login/")
    assert Client().post(UPLOAD)["Location"].startswith("/login/")


@pytest.mark.parametrize("role", [Member.Role.VIEWER, Member.Role.REVIEWER])
def test_lesser_roles_do_not_import(sales: Department, browser: Client, role: str) -> None:
    job = _job(browser)
    client = _signed_in(make_user("vera", department=sales, role=role))
    assert client.get(UPLOAD).status_code == 404
    assert _upload(client).status_code == 404
    assert client.get(job.get_absolute_url()).status_code == 404
    for action in ACTIONS:
        assert client.post(f"/leads/import/{job.pk}/{action}/").status_code == 404


def test_other_departments_do_not_exist(sales: Department, browser: Client) -> None:
    job = _job(browser)
    other = make_department(slug="other")
    stranger = _signed_in(make_user("otto", department=other, role=Member.Role.ADMINISTRATOR))
    assert _upload(browser, department="other").status_code == 404
    assert stranger.get(job.get_absolute_url()).status_code == 404
    assert stranger.get(f"/leads/import/{job.pk}/remarks.csv").status_code == 404
    assert "people.csv" not in stranger.get(UPLOAD).content.decode()
    assert stranger.post(f"/leads/import/{job.pk}/start/").status_code == 404
    job.refresh_from_db()
    assert job.status == "draft"


def test_a_superuser_chooses_the_department(sales: Department) -> None:
    make_department(slug="other")
    root = _signed_in(make_user("root", is_superuser=True))
    assert '<option value="other">' in root.get(UPLOAD).content.decode()
    assert _upload(root, department="other").status_code == 302
    assert ImportJob.objects.get().department.slug == "other"
    assert _upload(root).status_code == 404


def test_actions_are_posted(browser: Client) -> None:
    job = _job(browser)
    for action in ACTIONS:
        assert browser.get(f"/leads/import/{job.pk}/{action}/").status_code == 405
    assert browser.post(job.get_absolute_url()).status_code == 405


def test_a_file_without_rows_offers_no_import(browser: Client) -> None:
    page = _page(browser, (job := _job(browser, b"name,email\n")))
    assert "no row below it, so there is nothing to import" in page
    assert f"/leads/import/{job.pk}/start/" not in page
    assert "0 leads" not in page, "no price and time of nothing"


def test_a_file_without_new_leads_has_no_price(browser: Client, sales: Department) -> None:
    make_lead(sales, email="anna@x.example", name="Anna")
    page = _page(browser, (job := _job(browser, b"name,email\nAnna,anna@x.example\n")))
    assert "No row brings a new lead." in page
    assert f"/leads/import/{job.pk}/start/" in page
