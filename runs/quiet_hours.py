"""When it is night where somebody lives: countries to time zones, and the end of quiet hours. Pure but for one file."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from functools import cache
from importlib import resources
from pathlib import Path
from zoneinfo import ZoneInfo

WIDE: Mapping[str, tuple[str, ...]] = {
    "US": ("America/New_York", "America/Los_Angeles"),
    "CA": ("America/Halifax", "America/Vancouver"),
    "MX": ("America/Mexico_City", "America/Tijuana"),
    "BR": ("America/Sao_Paulo", "America/Manaus"),
    "AU": ("Australia/Sydney", "Australia/Perth"),
    "RU": ("Europe/Moscow", "Asia/Novosibirsk", "Asia/Vladivostok"),
    "CN": ("Asia/Shanghai",),
}
"""Countries that lie in several zones: those at the ends of where most people live. It is quiet if it is in one."""


def zones_of(country: str) -> tuple[str, ...]:
    """The time zones of a country, by its ISO code or English name; empty if nobody knows it."""
    codes, names = _countries()
    text = country.strip()
    code = text.upper() if text.upper() in codes else names.get(text.casefold(), "")
    return WIDE.get(code, codes.get(code, ()))


def quiet_until(now: datetime, start: time | None, end: time | None, zones: Sequence[str]) -> datetime | None:
    """When the quiet hours end in the last of the zones; None if it is quiet in none of them.

    ``start`` and ``end`` are times of the clock there; they may lie around midnight. Summer time is heeded.
    """
    if start is None or end is None or start == end:
        return None
    ends = [_end(now, start, end, ZoneInfo(zone)) for zone in zones]
    return max((moment for moment in ends if moment is not None), default=None)


def _end(now: datetime, start: time, end: time, zone: ZoneInfo) -> datetime | None:
    local = now.astimezone(zone)
    clock = local.time()
    is_quiet = start <= clock < end if start < end else clock >= start or clock < end
    if not is_quiet:
        return None
    day = local.date() if clock < end else local.date() + timedelta(days=1)
    return datetime.combine(day, end, zone).astimezone(UTC)


@cache
def _countries() -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """From the tables of the time zone database: the first zone of each country, and codes by English name."""
    zones: dict[str, tuple[str, ...]] = {}
    for code, _, zone, *_ in _table("zone.tab"):
        zones.setdefault(code, (zone,))
    names = {name.casefold(): code for code, name, *_ in _table("iso3166.tab")}
    names |= {"united kingdom": "GB", "great britain": "GB", "england": "GB", "usa": "US", "united states": "US"}
    names |= {"uk": "GB", "czechia": "CZ", "the netherlands": "NL", "south korea": "KR", "uae": "AE"}
    return zones, names


def _table(name: str) -> Iterable[list[str]]:
    lines = _read(name).splitlines()
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


def _read(name: str) -> str:
    for folder in zoneinfo.TZPATH:
        if (path := Path(folder) / name).is_file():
            return path.read_text(encoding="utf-8")
    try:
        return resources.files("tzdata.zoneinfo").joinpath(name).read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError):
        return ""  # countries are unknown then, and the department's own zone counts
