"""The benchmark of pages knows every address there is, so that no page stays unmeasured."""

from __future__ import annotations

from tests.bench.pages import EXAMPLES, LEFT_OUT, MORE, SPECIAL
from tests.test_access_walk import find_routes


def test_every_address_has_an_example() -> None:
    missing = [
        route.name
        for route in find_routes()
        if "<" in route.pattern
        and route.name not in LEFT_OUT | set(SPECIAL)
        and (route.pattern.split("<", 1)[0] not in EXAMPLES or route.pattern.count("<") > 1)
    ]
    assert not missing, "Give these an example in EXAMPLES or SPECIAL (tests/bench/pages.py)"


def test_the_tables_name_what_exists() -> None:
    routes = list(find_routes())
    names, beginnings = {r.name for r in routes}, {r.pattern.split("<", 1)[0] for r in routes if "<" in r.pattern}
    assert {*MORE, *SPECIAL} <= names, {*MORE, *SPECIAL} - names
    assert set(EXAMPLES) <= beginnings, set(EXAMPLES) - beginnings
