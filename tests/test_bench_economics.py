"""What ``make economics`` counts as a first mail, and that its page says what it assumes."""

from __future__ import annotations

from decimal import Decimal

from tests.bench.economics import Call, Line, Table, _first_mails, render


def call(run: int, agent: str) -> Call:
    return Call(1, run, agent, "claude-haiku-5-5", 1_000, 100)


def test_repairs_belong_to_the_first_mail_and_the_checks_of_later_mails_do_not() -> None:
    first = [call(1, "writer"), call(2, "fact_checker"), call(2, "fact_checker"), call(3, "formatter")]
    later = [call(4, "followup_writer"), call(5, "fact_checker"), call(6, "formatter"), call(6, "formatter")]
    assert _first_mails([*first, *later]) == first


def test_every_choice_has_its_sum_in_both_currencies_and_what_is_assumed_is_said() -> None:
    lines = [Line(name, 10, 30, 9_000, 900, Decimal(usd)) for name, usd in (("as shipped", "0.1"), ("all dear", "2"))]
    text = render([Table("A lead", lines)])
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "as shipped 5.00 4.60" in rows
    assert "all dear 100.00 92.00" in rows
    assert "by 1/2 of each prompt" in text
    assert "thinking tokens for each token of an answer" in text
