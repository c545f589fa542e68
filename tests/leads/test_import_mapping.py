"""Columns of the usual exports, and rows into leads."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leads.cleaning import LIMITS, clean_line, clean_text, tidy_phone, tidy_website
from leads.mapping import MappingError, RowError, check_mapping, read_lead, recognise


@pytest.mark.parametrize(
    "columns",
    [
        # HubSpot
        {
            "Record ID - Contact": "external_id",
            "First Name": "first_name",
            "Last Name": "last_name",
            "Email": "email",
            "Phone Number": "phone",
            "Company name": "company",
            "Job Title": "title",
            "Website URL": "website",
            "Country/Region": "country",
            "Message": "message",
            "Contact owner": "attribute",
            "Associated Company IDs": "attribute",
            "Lead Status": "attribute",
        },
        # Salesforce, by labels and by names of the API
        {
            "Lead ID": "external_id",
            "First Name": "first_name",
            "Last Name": "last_name",
            "Title": "title",
            "Company / Account": "company",
            "Email": "email",
            "Mailing Country": "country",
            "Lead Source": "attribute",
        },
        {
            "Id": "external_id",
            "FirstName": "first_name",
            "LastName": "last_name",
            "Account.Name": "company",
            "MobilePhone": "phone",
            "MailingCountry": "country",
            "OwnerId": "attribute",
        },
        # Pipedrive
        {
            "Person - ID": "external_id",
            "Person - Name": "name",
            "Person - Email - Work": "email",
            "Person - Phone - Work": "phone",
            "Person - Organization": "company",
            "Lead - Title": "attribute",
        },
        # Apollo
        {
            "First Name": "first_name",
            "Last Name": "last_name",
            "Title": "title",
            "Company Name": "company",
            "Email": "email",
            "Email Status": "attribute",
            "Work Direct Phone": "phone",
            "Corporate Phone": "phone",
            "Person Linkedin Url": "attribute",
            "Website": "website",
            "Country": "country",
            "Apollo Contact Id": "external_id",
        },
        {
            "Vorname": "first_name",
            "Name": "last_name",
            "E-Mail-Adresse": "email",
            "Firma": "company",
            "Position": "title",
            "Telefonnummer": "phone",
            "Webseite": "website",
            "Land": "country",
            "Nachricht": "message",
            "Titel": "attribute",
        },
        {
            "Prénom": "first_name",
            "Nom": "last_name",
            "Adresse e-mail": "email",
            "Société": "company",
            "Fonction": "title",
            "Téléphone": "phone",
            "Pays": "country",
        },
        {
            "Nombre": "first_name",
            "Apellidos": "last_name",
            "Correo electrónico": "email",
            "Compañía": "company",
            "Cargo": "title",
            "Teléfono": "phone",
            "País": "country",
        },
        {"Nombre": "name", "Nom": "name", "Ansprechpartner": "name"},
    ],
)
def test_it_recognises_the_columns_of_usual_exports(columns: dict[str, str]) -> None:
    assert recognise(list(columns)) == columns


def test_ids_of_two_columns_do_not_stand_in_for_each_other() -> None:
    assert recognise(["Lead ID", "Contact ID", "Email"]) == {
        "Lead ID": "attribute",
        "Contact ID": "external_id",
        "Email": "email",
    }


def test_a_mapping_of_a_person_goes_before_the_recognised_one() -> None:
    columns = ["Kontakt", "Email", "Id", "Nummer", "Intern"]
    given_mapping = {"Kontakt": "company", "Nummer": "external_id", "Intern": None}
    assert check_mapping(given_mapping, columns) == {
        "Kontakt": "company",
        "Email": "email",
        "Id": "attribute",
        "Nummer": "external_id",
        "Intern": "ignore",
    }


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"Mail": "email"}, "no column 'Mail'"),
        ({"Email": "e-mail"}, "A column can be: email, name"),
        ({"Email": ["email"]}, "is mapped to"),
        ({"Email": "ignore"}, "No column holds an e-mail address"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(mapping: dict[str, object], words: str) -> None:
    with pytest.raises(MappingError, match=words):
        check_mapping(mapping, ["Email", "Name"])


def test_a_row_becomes_a_lead() -> None:
    columns = ["First Name", "Last Name", "Email", "Company", "Phone", "Mobile", "Website", "Employees"]
    cells = dict(
        zip(
            columns,
            ["  Jörg ", "Weiß", "<J.Weiss@BÜCHER.example>", "A\u200b &  B", "'+49 30 555", "0170", "B.example/x", "12"],
            strict=True,
        )
    )
    row = read_lead(7, cells, recognise(columns))
    assert row.number == 7
    assert row.fields == {
        "name": "Jörg Weiß",
        "email": "j.weiss@xn--bcher-kva.example",
        "company": "A & B",
        "phone": "+49 30 555",
        "website": "https://b.example/x",
    }
    assert row.attributes == {"Mobile": "0170", "Employees": "12"}
    assert row.title == "Jörg Weiß"


def test_a_row_without_any_key_is_rejected() -> None:
    with pytest.raises(RowError, match="no e-mail address and no external id"):
        read_lead(2, {"Name": "Anna"}, {"Name": "name"})


def test_an_invalid_address_rejects_the_row_unless_an_external_id_makes_it_known() -> None:
    mapping = {"Email": "email", "Id": "external_id"}
    with pytest.raises(RowError, match="'paul\\(at\\)x' is not a valid e-mail address"):
        read_lead(2, {"Email": "paul(at)x", "Id": ""}, mapping)
    row = read_lead(2, {"Email": "paul(at)x", "Id": "9"}, mapping)
    assert row.fields == {"external_id": "9"}
    assert row.attributes == {"Email": "paul(at)x"}
    assert "not a valid e-mail address" in row.notes[0]


def test_of_several_addresses_the_first_valid_one_is_taken_and_the_others_kept() -> None:
    row = read_lead(2, {"Email": "not@valid@x, a@x.example; b@x.example"}, {"Email": "email"})
    assert row.email == "a@x.example"
    assert row.attributes == {"Email": "not@valid@x, a@x.example; b@x.example"}
    assert len(row.notes) == 2


def test_what_is_too_long_is_cut_with_a_note() -> None:
    row = read_lead(2, {"Email": "a@x.example", "Name": "n" * 300}, {"Email": "email", "Name": "name"})
    assert row.fields["name"] == "n" * 200
    assert row.notes == ("Name is cut to 200 characters.",)


def test_a_website_that_is_none_is_kept_as_attribute() -> None:
    mapping = {"Email": "email", "Web": "website"}
    row = read_lead(2, {"Email": "a@x.example", "Web": "javascript:alert(1)"}, mapping)
    assert "website" not in row.fields
    assert row.attributes == {"Web": "javascript:alert(1)"}
    assert row.notes


@pytest.mark.parametrize(
    ("text", "website"),
    [
        ("Example.COM", "https://example.com"),
        ("HTTP://Example.com/Path", "http://example.com/Path"),
        ("ftp://example.com", ""),
        ("none", ""),
        ("http://[", ""),
        ("two words.example", ""),
    ],
)
def test_websites_are_tidied(text: str, website: str) -> None:
    assert tidy_website(text) == website


def test_phones_are_tidied() -> None:
    assert tidy_phone("'+49 (0)30 / 555-12 ext. 7") == "+49 (0)30 / 555-12 ext. 7"
    assert tidy_phone("call me") == ""


@settings(max_examples=200)
@given(st.text())
def test_cleaned_text_is_stored_by_every_database_and_clean_already(text: str) -> None:
    for clean in (clean_line, clean_text):
        once = clean(text)
        assert clean(once) == once
        assert "\x00" not in once
        once.encode()
    assert "\n" not in clean_line(text)


_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
_JSON = st.recursive(_VALUES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["email", "name", "id", "phone", "website", "x"]), _JSON))
def test_any_row_becomes_a_lead_or_is_rejected(cells: dict[str, object]) -> None:
    try:
        row = read_lead(1, cells, recognise(list(cells)))
    except RowError:
        return
    assert row.email or row.external_id
    assert all(value and len(value) <= LIMITS[name] for name, value in row.fields.items())
