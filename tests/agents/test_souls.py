from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from agents.models import Agent, Department, Soul
from agents.models.agent import SECTIONS
from agents.souls import (
    SoulError,
    create_draft,
    diff_souls,
    parse_soul,
    publish,
    published_soul,
    read_soul,
    roll_back,
    sections_of,
)
from agents.spec import kinds
from leads.department import SALES

TEXTS = {"identity": "You are Ida.", "responsibilities": "Write.", "prohibitions": "Never lie."}
MARKDOWN = "# Identity\nYou are Ida.\n\n# Responsibilities\nWrite.\n\n# Prohibitions\nNever lie.\n"


def make_agent() -> Agent:
    department = Department.objects.create(kind="desk", slug="desk", name="Desk")
    return Agent.objects.create(department=department, slug="writer", job="Writes", model="m", writes="draft")


def make_published(agent: Agent, **texts: str) -> Soul:
    soul = create_draft(agent=agent, sections={**TEXTS, **texts}, author=None)
    assert publish(soul=soul, author=None)
    return soul


class TestParsing:
    def test_three_sections_are_read(self) -> None:
        assert parse_soul(MARKDOWN) == TEXTS

    def test_smaller_headings_and_code_belong_to_a_section(self) -> None:
        text = "## Style\n```\n# Identity\n```\nPlain."
        found = parse_soul(MARKDOWN.replace("Write.", text))
        assert found["responsibilities"] == text

    @pytest.mark.parametrize(
        ("markdown", "sentence"),
        [
            ("", r"ida.md: the section `# Identity` is missing"),
            (MARKDOWN.replace("# Prohibitions", "# Never"), r"ida.md: the section `# Never` is not known"),
            (MARKDOWN + "# Identity\nAgain.", r"`# Identity` is there twice"),
            (MARKDOWN.replace("Write.", " "), r"`# Responsibilities` is empty"),
            ("Hello\n" + MARKDOWN, r"text before the first section"),
            (MARKDOWN.partition("# Prohibitions")[0], r"`# Prohibitions` is missing"),
        ],
    )
    def test_what_is_wrong_is_said_with_file_and_section(self, markdown: str, sentence: str) -> None:
        with pytest.raises(SoulError, match=sentence):
            parse_soul(markdown, name="ida.md")

    @given(st.text())
    def test_any_text_is_read_or_refused_with_a_sentence(self, text: str) -> None:
        with contextlib.suppress(SoulError):
            assert all(parse_soul(text)[name] for name in SECTIONS)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SoulError, match=r"nobody\.md cannot be read"):
            read_soul(tmp_path / "nobody.md")

    def test_what_goes_into_a_request_reads_back(self) -> None:
        assert parse_soul(Soul(**TEXTS).text) == TEXTS

    def test_every_shipped_soul_is_complete(self) -> None:
        for spec in {SALES.kind: SALES, **{spec.kind: spec for spec in kinds()}}.values():
            for agent in spec.agents:
                assert read_soul(Path(spec.souls_dir) / f"{agent.slug}.md")


@pytest.mark.django_db
class TestPublishing:
    def test_numbers_rise_and_the_old_one_is_retired(self) -> None:
        agent = make_agent()
        first, second = make_published(agent), make_published(agent, identity="You are Ada.")
        first.refresh_from_db()
        assert (first.number, first.status) == (1, "retired")
        assert (second.number, second.status) == (2, "published")
        assert second.published_at is not None
        assert published_soul(agent) == second

    def test_the_second_to_publish_changes_nothing(self) -> None:
        agent = make_agent()
        soul = create_draft(agent=agent, sections=TEXTS, author=None)
        again = Soul.objects.get(pk=soul.pk)
        assert publish(soul=soul, author=None)
        assert not publish(soul=again, author=None)
        assert Soul.objects.get().number == 1

    @pytest.mark.parametrize("section", SECTIONS)
    def test_an_empty_section_is_refused(self, section: str) -> None:
        agent = make_agent()
        old = make_published(agent)
        draft = create_draft(agent=agent, sections={**TEXTS, section: "  "}, author=None)
        with pytest.raises(SoulError, match=f"`# {section.capitalize()}` is empty"):
            publish(soul=draft, author=None)
        assert published_soul(agent) == old

    def test_a_draft_may_be_unfinished(self) -> None:
        assert create_draft(agent=make_agent(), sections={"identity": "You"}, author=None).prohibitions == ""

    def test_author_and_note_are_kept(self) -> None:
        ann, bob = User.objects.create_user("ann"), User.objects.create_user("bob")
        soul = create_draft(agent=make_agent(), sections=TEXTS, author=ann, note="Friendlier")
        publish(soul=soul, author=bob)
        soul.refresh_from_db()
        assert (soul.author, soul.note) == (ann, "Friendlier")

    def test_rolling_back_publishes_a_copy_under_a_new_number(self) -> None:
        agent = make_agent()
        first = make_published(agent)
        make_published(agent, identity="You are Ada.")
        copy = roll_back(agent=agent, number=1, author=None)
        assert (copy.number, copy.status, copy.note) == (3, "published", "Rolled back to SOUL 1")
        assert sections_of(copy) == sections_of(first)
        assert sorted(Soul.objects.values_list("status", flat=True)) == ["published", "retired", "retired"]

    def test_rolling_back_to_what_is_not_there_or_in_force_is_refused(self) -> None:
        agent = make_agent()
        make_published(agent)
        with pytest.raises(SoulError, match="writer has no SOUL 7"):
            roll_back(agent=agent, number=7, author=None)
        with pytest.raises(SoulError, match="the one in force"):
            roll_back(agent=agent, number=1, author=None)
        assert Soul.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_who_publish_at_once_get_two_numbers() -> None:
    agent = make_agent()
    drafts = [create_draft(agent=agent, sections=TEXTS, author=None) for _ in range(6)]
    barrier, errors = threading.Barrier(2), list[BaseException]()

    def work(mine: list[Soul]) -> None:
        try:
            barrier.wait(10)
            for draft in mine:
                publish(soul=draft, author=None)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(drafts[n::2],), daemon=True) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert list(Soul.objects.order_by("number").values_list("number", flat=True)) == [1, 2, 3, 4, 5, 6]
    assert Soul.objects.filter(status="published").count() == 1


def _save(soul: Soul) -> None:
    soul.identity = "Changed"
    soul.save()


def _save_column(soul: Soul) -> None:
    soul.status = Soul.Status.DRAFT
    soul.save(update_fields=["status"])


def _bulk_update(soul: Soul) -> None:
    soul.identity = "Changed"
    Soul.objects.bulk_update([soul], ["identity"])


def _upsert(soul: Soul) -> None:
    soul.identity = "Changed"
    Soul.objects.bulk_create([soul], update_conflicts=True, unique_fields=["id"], update_fields=["identity"])


WAYS: dict[str, Callable[[Soul], Any]] = {
    "save": _save,
    "save of the status": _save_column,
    "update": lambda soul: Soul.objects.filter(pk=soul.pk).update(identity="Changed"),
    "update of all": lambda soul: Soul.objects.update(identity="Changed"),
    "update through the agent": lambda soul: soul.agent.souls.update(identity="Changed"),
    "bulk_update": _bulk_update,
    "upsert": _upsert,
    "update_or_create": lambda soul: Soul.objects.update_or_create(defaults={"identity": "Changed"}, pk=soul.pk),
    "delete": lambda soul: soul.delete(),
    "delete of a queryset": lambda soul: Soul.objects.all().delete(),
}


@pytest.mark.django_db
class TestPublishedNeverChanges:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("is_retired", [False, True])
    def test_no_way_of_the_orm_changes_it(self, way: str, is_retired: bool) -> None:
        agent = make_agent()
        soul = make_published(agent)
        if is_retired:
            make_published(agent)
        before = Soul.objects.filter(pk=soul.pk).values().get()
        soul = Soul.objects.get(pk=soul.pk)
        with pytest.raises((ValidationError, DatabaseError), match="never"), transaction.atomic():
            WAYS[way](soul)
        assert Soul.objects.filter(pk=soul.pk).values().get() == before

    @pytest.mark.parametrize(
        "change", ["identity = 'x'", "number = 9", "status = 'draft'", "prohibitions = ''", "agent_id = agent_id + 1"]
    )
    def test_raw_sql_cannot_change_it_either(self, change: str) -> None:
        soul = make_published(make_agent())
        with (
            pytest.raises(DatabaseError, match="A published SOUL never changes"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(f"UPDATE agents_soul SET {change} WHERE id = %s", [soul.pk])

    def test_a_draft_can_be_changed_and_deleted(self) -> None:
        draft = create_draft(agent=make_agent(), sections=TEXTS, author=None)
        _save(draft)
        assert Soul.objects.filter(pk=draft.pk).update(note="x") == 1
        assert Soul.objects.all().delete()[0] == 1

    def test_it_outlives_its_author(self) -> None:
        ann = User.objects.create_user("ann")
        soul = create_draft(agent=make_agent(), sections=TEXTS, author=ann)
        publish(soul=soul, author=ann)
        ann.delete()
        soul.refresh_from_db()
        assert (soul.author, soul.identity) == (None, TEXTS["identity"])

    def test_a_department_that_never_ran_goes_with_its_souls(self) -> None:
        agent = make_agent()
        make_published(agent)
        agent.department.delete()
        assert not Soul.objects.exists()


class TestDiff:
    def test_lines_stand_side_by_side(self) -> None:
        old = Soul(identity="You are Ida.\nKind.", responsibilities="Write.", prohibitions="a\nb\nc")
        new = Soul(identity="You are Ada.\nKind.", responsibilities="Write.", prohibitions="a\nc\nd")
        identity, responsibilities, prohibitions = diff_souls(old, new)
        assert [(row.kind, row.old, row.new) for row in identity.rows] == [
            ("changed", "You are Ida.", "You are Ada."),
            ("same", "Kind.", "Kind."),
        ]
        assert not responsibilities.is_changed
        assert [row.kind for row in prohibitions.rows] == ["same", "removed", "same", "added"]

    def test_the_first_version_is_all_new(self) -> None:
        assert [row.kind for part in diff_souls(None, Soul(**TEXTS)) for row in part.rows] == ["added"] * 3

    @given(old=st.text("ab\n", max_size=30), new=st.text("ab\n", max_size=30))
    def test_both_texts_can_be_read_off(self, old: str, new: str) -> None:
        rows = diff_souls(Soul(identity=old), Soul(identity=new))[0].rows
        assert [row.old for row in rows if row.kind != "added"] == old.strip().splitlines()
        assert [row.new for row in rows if row.kind != "removed"] == new.strip().splitlines()
