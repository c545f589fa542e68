"""The simulator through the real SDK: answers, streams, counts, models, the prompt cache."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import pytest
from pydantic import BaseModel, Field

from agents.prompts import AgentInput, user_message
from tests.simulator_fixture import SimulatorServer


class Source(BaseModel):
    text: str
    kind: Literal["page", "note"]


class Verdict(BaseModel):
    """A schema with all that structured output allows."""

    score: int = Field(ge=40, le=60)
    share: float = Field(ge=0, le=1)
    tier: Literal["Hot", "Warm", "Cold"]
    sources: list[Source] = Field(min_length=1, max_length=3)
    note: str | None
    is_sure: bool
    reasoning_summary: str = Field(max_length=60)


DATA = user_message(AgentInput(item={"company": "Möbel Müller", "message": "Chairs for offices"}), "verdict")


def ask(model: str = "claude-haiku-5-5", **changes: Any) -> dict[str, Any]:
    """The arguments of a good request; a change to None leaves an argument out."""
    schema = {"type": "json_schema", "schema": anthropic.transform_schema(Verdict)}
    request = {
        "model": model,
        "max_tokens": 4000,
        "system": "You qualify.",
        "messages": [{"role": "user", "content": DATA}],
        "output_config": {"format": schema},
        **changes,
    }
    return {name: value for name, value in request.items() if value is not None}


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer() as running:
        yield running


@pytest.fixture
def client(server: SimulatorServer) -> Iterator[anthropic.Anthropic]:
    server.reset()
    options: dict[str, Any] = {"_strict_response_validation": True}
    with anthropic.Anthropic(api_key="key", base_url=server.base_url, max_retries=0, **options) as made:
        yield made


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@pytest.mark.parametrize("model", ["claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5", "claude-haiku-4-5"])
def test_an_answer_fits_the_schema_and_the_bounds_in_its_descriptions(client: anthropic.Anthropic, model: str) -> None:
    message = client.messages.create(**ask(model))
    Verdict.model_validate_json(text_of(message))
    assert message.stop_reason == "end_turn"
    assert message.model == model


def test_a_stream_says_the_same_as_a_plain_answer(client: anthropic.Anthropic) -> None:
    plain = client.messages.create(**ask())
    with client.messages.stream(**ask()) as stream:
        streamed = stream.get_final_message()
    assert text_of(streamed) == text_of(plain)
    assert streamed.usage.output_tokens == plain.usage.output_tokens
    assert streamed.usage.input_tokens == plain.usage.input_tokens
    assert streamed.stop_reason == "end_turn"


def test_a_stream_has_the_events_of_the_api_in_their_order(client: anthropic.Anthropic) -> None:
    kinds = [event.type for event in client.messages.create(**ask(), stream=True)]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 2
    assert kinds.count("content_block_delta") >= 20


def test_a_model_that_thinks_sends_a_thinking_block_first_and_bills_it(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**ask("claude-opus-5-5"))
    first = message.content[0]
    assert first.type == "thinking"
    assert first.thinking == ""
    assert first.signature
    details = message.usage.output_tokens_details
    assert details is not None
    assert 0 < details.thinking_tokens < message.usage.output_tokens


def test_thinking_is_shown_when_it_is_asked_for(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**ask(thinking={"type": "adaptive", "display": "summarized"}))
    assert message.content[0].type == "thinking"
    assert message.content[0].thinking


def test_a_model_whose_thinking_is_off_answers_at_once(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**ask(thinking={"type": "disabled"}))
    assert [block.type for block in message.content] == ["text"]


def test_more_effort_thinks_more(client: anthropic.Anthropic) -> None:
    schema = ask()["output_config"]
    spent = []
    for effort in ("low", "max"):
        message = client.messages.create(**ask(output_config={**schema, "effort": effort}))
        details = message.usage.output_tokens_details
        assert details is not None
        spent.append(details.thinking_tokens)
    assert spent[0] < spent[1]


def test_max_tokens_cuts_the_answer_where_it_says(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**ask(max_tokens=40, thinking={"type": "disabled"}))
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 40
    with pytest.raises(json.JSONDecodeError):
        json.loads(text_of(message))


def test_a_stop_sequence_ends_the_answer(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**ask(stop_sequences=['"tier"']))
    assert message.stop_reason == "stop_sequence"
    assert message.stop_sequence == '"tier"'
    assert '"tier"' not in text_of(message)


def test_without_a_schema_the_answer_is_text_about_the_item(client: anthropic.Anthropic) -> None:
    assert "Möbel Müller" in text_of(client.messages.create(**ask(output_config=None)))


def test_the_same_seed_gives_the_same_answer_and_another_seed_another() -> None:
    answers = []
    for seed in (1, 1, 2):
        with SimulatorServer(seed=seed) as running:
            client = anthropic.Anthropic(api_key="key", base_url=running.base_url, max_retries=0)
            answers.append(text_of(client.messages.create(**ask())))
    assert answers[0] == answers[1] != answers[2]


async def collect(base_url: str) -> tuple[str, str]:
    async with anthropic.AsyncAnthropic(
        api_key="key", base_url=base_url, max_retries=0, http_client=anthropic.DefaultAioHttpClient()
    ) as client:
        plain = await client.messages.create(**ask())
        stream = await client.messages.create(**ask(), stream=True)
        parts = [
            event.delta.text
            async for event in stream
            if event.type == "content_block_delta" and event.delta.type == "text_delta"
        ]
        return text_of(plain), "".join(parts)


def test_the_aiohttp_transport_gets_the_same_answers(server: SimulatorServer, client: anthropic.Anthropic) -> None:
    plain, streamed = asyncio.run(collect(server.base_url))
    assert plain == streamed == text_of(client.messages.create(**ask()))


def test_parse_returns_the_model(client: anthropic.Anthropic) -> None:
    parsed = client.messages.parse(**ask(output_config=None), output_format=Verdict)
    assert isinstance(parsed.parsed_output, Verdict)


def test_counted_tokens_are_the_billed_ones(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(**ask(max_tokens=None))
    assert counted.input_tokens == client.messages.create(**ask()).usage.input_tokens


def test_newer_tokenizers_make_thirty_percent_more(client: anthropic.Anthropic) -> None:
    new = client.messages.count_tokens(**ask("claude-haiku-5-5", max_tokens=None)).input_tokens
    old = client.messages.count_tokens(**ask("claude-haiku-4-5", max_tokens=None)).input_tokens
    assert new / old == pytest.approx(1.3, abs=0.01)


@pytest.mark.parametrize(
    ("text", "characters_a_token"),
    [
        ("The quick brown fox. " * 200, 3.6),
        ("Быстрая лисица бежит. " * 200, 1.9),
        ("東京都千代田区" * 200, 0.9),
    ],
)
def test_the_estimate_follows_the_script(client: anthropic.Anthropic, text: str, characters_a_token: float) -> None:
    request = {"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": text}]}
    tokens = client.messages.count_tokens(**request).input_tokens  # type: ignore[arg-type]
    assert len(text) / tokens == pytest.approx(characters_a_token, rel=0.1)


def test_a_cached_prefix_is_created_first_and_read_afterwards(client: anthropic.Anthropic) -> None:
    system = [{"type": "text", "text": "Rules. " * 2000, "cache_control": {"type": "ephemeral"}}]
    first = client.messages.create(**ask(system=system)).usage
    second = client.messages.create(**ask(system=system)).usage
    assert first.cache_creation_input_tokens
    assert first.cache_creation is not None
    assert first.cache_creation.ephemeral_5m_input_tokens == first.cache_creation_input_tokens
    assert not first.cache_read_input_tokens
    assert second.cache_read_input_tokens == first.cache_creation_input_tokens
    assert not second.cache_creation_input_tokens
    assert second.input_tokens == first.input_tokens


def test_a_prefix_below_the_minimum_is_not_cached(client: anthropic.Anthropic) -> None:
    system = [{"type": "text", "text": "Rules. " * 100, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    for _ in range(2):
        usage = client.messages.create(**ask(system=system)).usage
        assert (usage.cache_creation_input_tokens, usage.cache_read_input_tokens) == (0, 0)


def test_a_model_says_what_it_can(client: anthropic.Anthropic) -> None:
    info = client.models.retrieve("claude-haiku-4-5")
    assert info.max_tokens == 64_000
    assert info.lifecycle == "active"
    assert info.capabilities is not None
    assert not info.capabilities.effort.supported
    assert "claude-opus-5-5" in [model.id for model in client.models.list()]


def test_answers_carry_request_id_and_rate_limits(client: anthropic.Anthropic) -> None:
    raw = client.messages.with_raw_response.create(**ask())
    assert raw.headers["request-id"].startswith("req_")
    assert int(raw.headers["anthropic-ratelimit-requests-remaining"]) > 0


def test_a_fixed_latency_is_kept_and_the_first_token_comes_early(server: SimulatorServer) -> None:
    client = anthropic.Anthropic(api_key="key", base_url=server.base_url, max_retries=0)
    server.set_latency(400)
    try:
        started = time.monotonic()
        times = [time.monotonic() - started for _ in client.messages.create(**ask(), stream=True)]
    finally:
        server.set_latency(0)
    assert times[0] < 0.25
    assert 0.35 < times[-1] < 2
