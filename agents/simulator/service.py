"""The simulator itself, without a network: a request goes in, a plan of what to write comes out."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from agents.simulator import wire
from agents.simulator.answers import AnswerBookError
from agents.simulator.catalogue import MODELS, Model, find_model
from agents.simulator.engine import Engine
from agents.simulator.errors import ApiError
from agents.simulator.faults import Facts, Fault, Script
from agents.simulator.ledger import TOKEN_KINDS, Call, Ledger, RecordedRequest
from agents.simulator.plan import Plan, Planner
from agents.simulator.prompt import prompt_tokens
from agents.simulator.validation import MAX_BODY_BYTES, check_headers, check_request

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Request:
    """One HTTP request; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0].rstrip("/") or "/"

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2]))


@dataclass(slots=True)
class Exchange:
    """A request and what is answered. ``is_call``: it is for a message, so it goes to the books."""

    request: Request
    plan: Plan
    request_id: str
    is_call: bool = False
    model: str = ""
    stream: bool = False


@dataclass(slots=True)
class Simulator:
    """All state of one simulator. Not for use from several threads at once: the server's loop owns it."""

    engine: Engine = field(default_factory=Engine)
    ledger: Ledger = field(default_factory=Ledger)
    script: Script = field(default_factory=Script)
    _clock: wire.Clock = field(default_factory=wire.Clock)

    def handle(self, request: Request, now: float) -> Exchange:
        """Answer one request; ``now`` is the loop's time in seconds. Never raises."""
        request_id = self.engine.new_id("req")
        head = partial(_head, request_id, self._clock.lines(now))
        planner = Planner(head, request_id)
        exchange = Exchange(request, Plan([], "answered"), request_id)
        if request.path.startswith("/_control"):
            exchange.plan = self._control(request, planner)
            return exchange
        exchange.is_call = request.path == "/v1/messages" and request.method == "POST"
        if exchange.is_call:
            self.ledger.begin()
        self._record(request)
        try:
            exchange.plan = self._route(request, exchange, planner, now)
        except ApiError as error:
            exchange.plan = planner.error(error)
        except AnswerBookError as error:
            logger.exception("An answer book failed")
            exchange.plan = planner.error(ApiError(500, str(error)))
        except Exception as error:
            logger.exception("The simulator failed")
            exchange.plan = planner.error(ApiError(500, f"The simulator failed: {error!r}"))
        return exchange

    def finished(self, exchange: Exchange, share: float, seconds: float) -> None:
        """The exchange is over: ``share`` of its plan was written, 1.0 if the client stayed to the end."""
        if not exchange.is_call:
            return
        plan, headers = exchange.plan, exchange.request.headers
        usage = None
        if plan.reply is not None:
            output = round(plan.reply.output_tokens * plan.output_share * share)
            given = plan.reply.usage(output)
            usage = {kind: given[kind] for kind in TOKEN_KINDS}
        self.ledger.finish(
            Call(
                call_id=headers.get("x-kontor-call", ""),
                agent=headers.get("x-kontor-agent", ""),
                model=exchange.model,
                status=plan.status,
                outcome=plan.outcome if share >= 1 else "abandoned",
                fault=plan.fault,
                usage=usage,
                stream=exchange.stream,
                request_id=exchange.request_id,
                seconds=round(seconds, 4),
            )
        )

    def _route(self, request: Request, exchange: Exchange, planner: Planner, now: float) -> Plan:
        path = request.path
        handlers: dict[tuple[str, str], Callable[[], Plan]] = {
            ("POST", "/v1/messages"): lambda: self._messages(request, exchange, planner, now),
            ("POST", "/v1/messages/count_tokens"): lambda: self._count_tokens(request, planner),
            ("GET", "/v1/models"): lambda: self._models(request, planner),
        }
        handler = handlers.get((request.method, path))
        if handler is not None:
            return handler()
        if request.method == "GET" and path.startswith("/v1/models/"):
            return self._model(request, planner)
        if any(path == known for _, known in handlers):
            raise ApiError(405, "Method Not Allowed")
        raise ApiError(404, "Not Found")

    def _messages(self, request: Request, exchange: Exchange, planner: Planner, now: float) -> Plan:
        check_headers(request.headers)
        body = _parse(request)
        self._note(exchange, body)
        fault = self._pick("messages", request, body)
        if fault is not None and fault.kind == "status":
            plan = planner.scripted_status(fault)
            plan.fault = fault.kind
            return plan
        model = check_request(body, version=request.headers["anthropic-version"])
        reply = self.engine.reply(body, model, fault, now)
        if fault is not None and fault.kind == "rubbish":
            plan = planner.rubbish(fault, reply, stream=exchange.stream)
        elif exchange.stream:
            plan = planner.stream(reply, fault)
        else:
            plan = planner.message(reply, fault)
        if fault is not None:
            plan.fault = fault.kind
            delay = fault.delay_ms / 1000
            plan.steps = [(at + delay, data) for at, data in plan.steps]
        return plan

    def _count_tokens(self, request: Request, planner: Planner) -> Plan:
        check_headers(request.headers)
        body = _parse(request)
        fault = self._pick("count_tokens", request, body)
        if fault is not None and fault.kind == "status":
            return planner.scripted_status(fault)
        model = check_request(body, version=request.headers["anthropic-version"], counting=True)
        return planner.json({"input_tokens": prompt_tokens(body, model)}, delay=_delay(fault))

    def _models(self, request: Request, planner: Planner) -> Plan:
        check_headers(request.headers)
        data = [model.as_json() for model in MODELS.values()]
        page = {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}
        return planner.json(page)

    def _model(self, request: Request, planner: Planner) -> Plan:
        check_headers(request.headers)
        fault = self._pick("models", request, {})
        if fault is not None and fault.kind == "status":
            return planner.scripted_status(fault)
        name = request.path.removeprefix("/v1/models/")
        model: Model | None = find_model(name)
        if model is None:
            raise ApiError(404, f"model: {name}")
        return planner.json(model.as_json(), delay=_delay(fault))

    def _pick(self, endpoint: str, request: Request, body: Any) -> Fault | None:
        if not self.script.rules:
            return None
        given = body if isinstance(body, dict) else {}
        limit = given.get("max_tokens")
        facts = Facts(
            agent=request.headers.get("x-kontor-agent", ""),
            model=str(given.get("model", "")),
            endpoint=endpoint,
            stream=given.get("stream") is True,
            max_tokens=limit if isinstance(limit, int) else 0,
            text=request.body,
        )
        return self.script.pick(facts)

    def _note(self, exchange: Exchange, body: Any) -> None:
        if isinstance(body, dict):
            exchange.model = str(body.get("model", ""))
            exchange.stream = body.get("stream") is True

    def _record(self, request: Request) -> None:
        self.ledger.requests[request.path] += 1
        if self.ledger.record:
            self.ledger.recorded.append(
                RecordedRequest(request.method, request.target, dict(request.headers), request.body)
            )

    def _control(self, request: Request, planner: Planner) -> Plan:
        name = request.path.removeprefix("/_control/")
        if (request.method, name) == ("POST", "reset"):
            self.reset()
            return planner.json({"reset": True})
        if (request.method, name) == ("POST", "faults"):
            return self._set_faults(request, planner)
        if (request.method, name) == ("GET", "faults"):
            return planner.json({"rules": self.script.as_json()})
        if (request.method, name) == ("GET", "stats"):
            return planner.json(self.ledger.as_json(calls=request.query.get("calls") == "1"))
        if (request.method, name) == ("GET", "requests"):
            last = request.query.get("last", "")
            kept = list(self.ledger.recorded)[-int(last) if last.isdigit() and int(last) else None :]
            return planner.json([entry.as_json() for entry in kept])
        return planner.json({"error": "Known: faults, stats, requests, reset."}, status=404)

    def _set_faults(self, request: Request, planner: Planner) -> Plan:
        try:
            self.script = Script(json.loads(request.body or b"[]"))
        except (ValueError, TypeError) as error:
            return planner.json({"error": str(error)}, status=400)
        return planner.json({"rules": len(self.script.rules)})

    def reset(self) -> None:
        """Forget the books, the fault script and the prompt cache."""
        self.ledger.reset()
        self.script = Script()
        self.engine.cache.clear()


def _head(request_id: str, common: bytes, status: int, **options: Any) -> bytes:
    return wire.head(status, request_id, common, **options)


def _delay(fault: Fault | None) -> float:
    return fault.delay_ms / 1000 if fault is not None else 0.0


def _parse(request: Request) -> Any:
    if len(request.body) > MAX_BODY_BYTES:
        raise ApiError(413, "Request exceeds the maximum size")
    try:
        return json.loads(request.body)
    except ValueError as error:
        raise ApiError(400, f"The request body is not valid JSON: {error}") from None
