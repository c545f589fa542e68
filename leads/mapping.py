"""Which column is which field of a lead, and one row of a table into the fields of one lead. Pure.

Columns are recognised by the names that HubSpot, Salesforce, Pipedrive and Apollo give them in exports, and
by the common English, German, French and Spanish ones. What is not recognised becomes an attribute.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leads.cleaning import (
    LIMITS,
    MAX_ATTRIBUTES,
    clean_attribute,
    clean_attribute_name,
    clean_line,
    clean_text,
    split_emails,
    tidy_phone,
    tidy_website,
)
from runs.addresses import normalise_email

ATTRIBUTE = "attribute"
IGNORE = "ignore"
FIELDS = {
    "email": "E-mail",
    "name": "Name",
    "first_name": "First name",
    "last_name": "Last name",
    "company": "Company",
    "title": "Job title",
    "phone": "Phone",
    "website": "Website",
    "country": "Country",
    "message": "Message",
    "external_id": "External id",
}
"""What a column can be mapped to, with the name a person reads."""
TARGETS = {**FIELDS, ATTRIBUTE: "Keep as attribute", IGNORE: "Leave out"}

# Written as `_plain` makes them: lower case letters and digits only. Where several columns hold the same
# field, the first in this order that is not empty counts.
_NAMES: dict[str, str] = {
    "email": """
        email emailaddress workemail businessemail primaryemail personemailwork personemail
        contactemail leademail personemailother personemailhome emailwork emailbusiness email1 mail
        mailaddress personalemail secondaryemail tertiaryemail email2 emailadresse mailadresse
        geschaftlicheemail adresseemail adressemail adresseelectronique courriel mel correo
        correoelectronico emailtrabajo direcciondecorreoelectronico direcciondecorreo
    """,
    "name": """
        fullname name contactname leadname personname contactfullname displayname ansprechpartner
        ansprechpartnerin kontakt kontaktname vollstandigername nomcomplet nometprenom prenometnom
        contact nombrecompleto nombreyapellidos nombreyapellido contacto
    """,
    "first_name": """
        firstname givenname forename personfirstname contactfirstname vorname rufname prenom
        primernombre nombredepila
    """,
    "last_name": """
        lastname surname familyname personlastname contactlastname nachname familienname zuname
        nomdefamille apellido apellidos
    """,
    "company": """
        company companyname accountname account organization organisation organizationname
        organisationname personorganization leadorganization associatedcompany
        primaryassociatedcompany companyaccount employer business firma firmenname unternehmen
        unternehmensname firmierung betrieb societe entreprise nomdelasociete nomdelentreprise
        raisonsociale empresa compania nombredelaempresa nombredelacompania razonsocial
        companynameforemails
    """,
    "title": """
        jobtitle personjobtitle contacttitle position role jobrole title personposition
        berufsbezeichnung funktion jobtitel stellenbezeichnung poste fonction intituleduposte
        titreduposte cargo puesto puestodetrabajo
    """,
    "phone": """
        phone phonenumber telephone telephonenumber businessphone workphone workdirectphone
        directphone personphonework personphone personphonemobile mobile mobilephone
        mobilephonenumber cellphone cell contactphone otherphone personphoneother personphonehome
        homephone corporatephone companyphone tel telefon telefonnummer rufnummer handy handynummer
        mobil mobiltelefon mobilnummer telefongeschaftlich numerodetelephone telephoneportable
        portable numtel telefono numerodetelefono movil telefonomovil celular
    """,
    "website": """
        website websiteurl companywebsite webaddress url homepage web domain companydomain
        companydomainname organizationwebsite site webseite internetseite internetadresse siteweb
        siteinternet sitioweb paginaweb
    """,
    "country": """
        country countryregion mailingcountry billingcountry personcountry companycountry
        organizationcountryofaddress organizationaddresscountry personpostaladdresscountry
        countrycode mailingcountrycode land staat pays pais
    """,
    "message": """
        message comments comment enquiry inquiry question yourmessage howcanwehelp nachricht
        mitteilung anfrage kommentar ihrenachricht commentaire commentaires votremessage demande
        mensaje comentario comentarios consulta
    """,
    "external_id": """
        externalid recordid recordidcontact contactid leadid personid apollocontactid hubspotid
        salesforceid pipedriveid crmid customerid id kundennummer identifiant idexterne idexterno
    """,
}
_RANKS: dict[str, tuple[str, int]] = {
    alias: (target, rank) for target, names in _NAMES.items() for rank, alias in enumerate(names.split())
}
# Words that mean the family name beside a first name, and the whole name without one.
_NAME_OR_LAST = {"name", "nom"}
_NAME_OR_FIRST = {"nombre"}


class MappingError(ValueError):
    """A mapping names a column or a field that is not there; the text says which there are."""


class RowError(ValueError):
    """A row cannot become a lead; the text is the reason, a sentence."""


@dataclass(frozen=True, slots=True)
class LeadRow:
    """One lead as it came in: ``fields`` by name of the model's column, never empty."""

    number: int
    fields: dict[str, str]
    attributes: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def email(self) -> str:
        return self.fields.get("email", "")

    @property
    def external_id(self) -> str:
        return self.fields.get("external_id", "")

    @property
    def title(self) -> str:
        """What the lead's item is called."""
        return next((v for k in ("name", "email", "company", "external_id") if (v := self.fields.get(k))), "")


def recognise(columns: Sequence[str]) -> dict[str, str]:
    """``{column: target}`` for every column, in their order; ``ATTRIBUTE`` where the name says nothing."""
    plain = {column: _plain(column) for column in columns}
    names = set(plain.values())
    has_first = any(_RANKS.get(name, ("",))[0] == "first_name" for name in names)
    has_last = any(_RANKS.get(name, ("",))[0] == "last_name" for name in names)
    result = {}
    for column, name in plain.items():
        target = _RANKS.get(name, (ATTRIBUTE, 0))[0]
        if name in _NAME_OR_LAST:
            target = "last_name" if has_first and not has_last else "name"
        elif name in _NAME_OR_FIRST:
            target = "first_name" if has_last else "name"
        result[column] = target
    _keep_one_external_id(result)
    return result


def check_mapping(given: Mapping[str, Any], columns: Sequence[str]) -> dict[str, str]:
    """A person's mapping over the recognised one; ``MappingError`` for an unknown column or field.

    ``{"Firma": "company", "Notiz": "attribute", "Intern": "ignore"}``; null and "" mean ``ignore``.
    """
    result = recognise(columns)
    for column, target in given.items():
        if column not in result:
            raise MappingError(f"There is no column {column!r}. There are: {', '.join(columns)}.")
        name = target or IGNORE
        if not isinstance(name, str) or name not in TARGETS:
            raise MappingError(f"{column!r} is mapped to {target!r}. A column can be: {', '.join(TARGETS)}.")
        result[column] = name
    chosen = [c for c, target in given.items() if target == "external_id"]
    if chosen:
        # An id that the recogniser found gives way to the one the person named.
        result = {c: ATTRIBUTE if t == "external_id" and c not in chosen else t for c, t in result.items()}
    if "email" not in result.values() and "external_id" not in result.values():
        raise MappingError("No column holds an e-mail address or an external id, so no lead could be recognised again.")
    return result


def read_lead(number: int, cells: Mapping[str, Any], mapping: Mapping[str, str]) -> LeadRow:
    """One row into one lead; ``RowError`` if it has no usable e-mail address and no external id."""
    found, attributes = _sort_cells(cells, mapping)
    notes: list[str] = []
    fields = {}
    for name, entries in found.items():
        if name == "email":
            value = _email(entries, attributes, notes, has_id=bool(found.get("external_id")))
        else:
            value = _first(name, entries, attributes, notes)
        if value:
            fields[name] = value
    _join_name(fields)
    fields = {name: _cut(name, value, notes) for name, value in fields.items()}
    if not fields.get("email") and not fields.get("external_id"):
        raise RowError("The row has no e-mail address and no external id.")
    if len(attributes) > MAX_ATTRIBUTES:
        attributes = dict(list(attributes.items())[:MAX_ATTRIBUTES])
        notes.append(f"Only the first {MAX_ATTRIBUTES} attributes are kept.")
    return LeadRow(number, fields, attributes, tuple(notes))


def _sort_cells(
    cells: Mapping[str, Any], mapping: Mapping[str, str]
) -> tuple[dict[str, list[tuple[str, str]]], dict[str, Any]]:
    """``{field: [(column, text)]}`` in order of preference, and what stays an attribute."""
    found: dict[str, list[tuple[str, str]]] = {}
    attributes: dict[str, Any] = {}
    for column, value in cells.items():
        target = mapping.get(column, ATTRIBUTE)
        if target == IGNORE or value is None or value == "":
            continue
        if target == ATTRIBUTE or isinstance(value, dict | list):
            _keep(attributes, column, value)
            continue
        text = clean_text(str(value)) if target == "message" else clean_line(str(value))
        if text:
            found.setdefault(target, []).append((column, text))
    for entries in found.values():
        if len(entries) > 1:
            entries.sort(key=lambda entry: _RANKS.get(_plain(entry[0]), ("", -1))[1])
    return found, attributes


def _first(name: str, entries: list[tuple[str, str]], attributes: dict[str, Any], notes: list[str]) -> str:
    """The first usable value of a field; the others, and what is unusable, are kept as attributes."""
    tidy = {"phone": tidy_phone, "website": tidy_website}.get(name)
    value = ""
    for column, text in entries:
        candidate = tidy(text) if tidy else text
        if candidate and not value:
            value = candidate
            continue
        if not candidate:
            notes.append(f"{text[:60]!r} is no {FIELDS[name].lower()}: kept as attribute.")
        if not candidate or candidate != value:
            _keep(attributes, column, text)
    return value


def _email(entries: list[tuple[str, str]], attributes: dict[str, Any], notes: list[str], *, has_id: bool) -> str:
    """The first valid address. A row without one is refused, unless an external id makes it known."""
    value, problem = "", ""
    for column, text in entries:
        parts = split_emails(text) or [text]
        for part in parts:
            try:
                address = normalise_email(part)
            except ValueError as error:
                problem = problem or f"{part[:60]!r} is not a valid e-mail address: {error}"
                _keep(attributes, column, text)
                continue
            if not value:
                value = address
            elif address != value:
                _keep(attributes, column, text)
                notes.append(f"More than one e-mail address: {value} is taken, {address} kept as attribute.")
    if problem and not value and not has_id:
        raise RowError(problem)
    if problem:
        notes.append(problem)
    return value


def _join_name(fields: dict[str, str]) -> None:
    first, last = fields.pop("first_name", ""), fields.pop("last_name", "")
    if not fields.get("name") and (first or last):
        fields["name"] = f"{first} {last}".strip()


def _cut(name: str, value: str, notes: list[str]) -> str:
    limit = LIMITS[name]
    if len(value) <= limit:
        return value
    if name == "external_id":
        raise RowError(f"The external id is longer than {limit} characters.")
    notes.append(f"{FIELDS[name]} is cut to {limit:,} characters.")
    return value[:limit].rstrip()


def _keep(attributes: dict[str, Any], column: str, value: Any) -> None:
    cleaned = clean_attribute(value)
    if cleaned not in ("", [], {}):
        attributes[clean_attribute_name(column)] = cleaned


def _keep_one_external_id(mapping: dict[str, str]) -> None:
    """Ids of two columns number different things, so that one must not stand in for the other."""
    columns = [column for column, target in mapping.items() if target == "external_id"]
    columns.sort(key=lambda column: _RANKS[_plain(column)][1])
    for column in columns[1:]:
        mapping[column] = ATTRIBUTE


def _plain(column: str) -> str:
    """``First Name``, ``first_name`` and ``FirstName`` are ``firstname``; ``Prénom`` is ``prenom``."""
    decomposed = unicodedata.normalize("NFKD", column.casefold())
    return re.sub(r"[^a-z0-9]", "", "".join(c for c in decomposed if not unicodedata.combining(c)))
