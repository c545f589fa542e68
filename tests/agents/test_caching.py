from __future__ import annotations

from typing import Any

import pytest

from agents.caching import (
    READABLE_AFTER_SECONDS,
    SAFE_SECONDS,
    CacheWatch,
    minimum_tokens,
    prefix_tokens,
    with_breakpoint,
)

HAIKU = "claude-haiku-5-5"
PREFIX = (1, 7, HAIKU)
MARK = {"type": "ephemeral"}


def make_params(size: int = 6_000, model: str = HAIKU) -> dict[str, Any]:
    return {
        "model": model,
        "system": [{"type": "text", "text": "S" * (size // 2)}, {"type": "text", "text": "T" * (size - size // 2)}],
        "messages": [{"role": "user", "content": "Write."}],
    }


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_second_request_within_five_minutes_asks_for_it() -> None:
    clock = Clock()
    watch = CacheWatch(clock)
    assert watch.apply(make_params(), PREFIX) == make_params()
    clock.now += SAFE_SECONDS
    found = watch.apply(make_params(), PREFIX)
    assert [block.get("cache_control") for block in found["system"]] == [None, MARK]
    clock.now += SAFE_SECONDS + 1
    assert watch.apply(make_params(), PREFIX) == make_params()


def test_of_many_at_once_one_writes_and_those_that_come_later_read() -> None:
    clock = Clock()
    watch = CacheWatch(clock)
    burst = [watch.apply(make_params(), PREFIX) for _ in range(50)]
    assert [n for n, params in enumerate(burst) if params != make_params()] == [1]
    clock.now += READABLE_AFTER_SECONDS
    assert all(watch.apply(make_params(), PREFIX) != make_params() for _ in range(50))
    # Reading keeps it alive; left alone it is gone, and written once again.
    for _ in range(3):
        clock.now += SAFE_SECONDS
        assert watch.apply(make_params(), PREFIX) != make_params()


@pytest.mark.parametrize("other", [(2, 7, HAIKU), (1, 8, HAIKU), (1, 7, "claude-sonnet-5-5")])
def test_another_agent_soul_or_model_is_another_beginning(other: tuple[int, int, str]) -> None:
    watch = CacheWatch(Clock())
    watch.apply(make_params(), PREFIX)
    params = make_params(model=other[2])
    assert watch.apply(params, other) == params


def test_a_beginning_that_is_too_short_for_the_model_is_not_asked_for() -> None:
    for size, is_marked in ((3 * 511, False), (3 * 512, True)):
        watch = CacheWatch(Clock())
        watch.apply(make_params(size), PREFIX)
        assert ("cache_control" in watch.apply(make_params(size), PREFIX)["system"][-1]) is is_marked


def test_tools_belong_to_the_beginning() -> None:
    params = {**make_params(30), "tools": [{"name": "x" * 300}]}
    assert prefix_tokens(params) > prefix_tokens(make_params(30)) + 100


def test_older_models_need_more() -> None:
    assert minimum_tokens("claude-haiku-4-5") == 4_096
    assert minimum_tokens("claude-sonnet-5-5") == 1_024
    assert prefix_tokens(make_params(400, "claude-haiku-4-5")) == 100


def test_the_request_that_was_given_is_not_changed() -> None:
    params = make_params()
    with_breakpoint(params)
    assert params == make_params()
