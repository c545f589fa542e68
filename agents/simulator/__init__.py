"""The simulator: a local server that speaks the Messages API (version 2026-10-21), for demonstrations,
tests and benchmarks. The real SDK and the real code path run against it without a key and without costs.

It serves ``POST /v1/messages`` (JSON and server-sent events), ``POST /v1/messages/count_tokens``, ``GET
/v1/models`` and ``GET /v1/models/{id}``. Any key is accepted but an empty one and the literal
``invalid``. Requests that the API refuses are refused with its status, error type and wording. Answers
satisfy the request's schema and depend only on the seed and the request's data;
``answers.register_answers`` gives a schema's title an answer book. Token counts are estimates
(``tokens``), latencies experience (``catalogue``).

Control, for whoever can reach the port, hence loopback only by default:

- ``POST /_control/faults`` replaces the fault script by the list of rules in the body; ``GET`` says how
  often each rule has fired.
- ``GET /_control/stats`` totals; with ``?calls=1`` one record a call. Calls are named by the request
  header ``x-kontor-call``, agents by ``x-kontor-agent``.
- ``GET /_control/requests?last=N`` the last raw requests, unless started with ``--no-record``.
- ``POST /_control/reset`` forgets books, recorded requests, fault script and prompt cache.

A rule is ``{"match": {…}, "what": {"kind": …, …}}``. The first rule that fires decides; every rule
counts every request that fits it. All parts of ``match`` may be left out:

- ``agent``, ``model``: one name or a list; ``endpoint``: ``messages`` (default), ``count_tokens``,
  ``models``, ``any``; ``stream``: true or false; ``contains``: a text in the body; ``max_tokens_below``:
  N
- ``nth``: a number or a list, ``every``: N, ``first``: N, ``after``: N, counted from 1 for each agent
- ``probability`` with ``seed``; ``times``: fire at most so often in total

Kinds, with their parameters; every one also takes ``delay_ms``:

- ``status``: an HTTP error. ``status`` (529), ``type``, ``message``, ``error_code``, ``headers`` (such
  as ``{"retry-after": "7"}``), ``body`` (raw text in place of the JSON, as proxies answer)
- ``delay``: nothing but ``delay_ms``
- ``silence``: no byte for ``seconds``, then the rest. ``where``: ``before`` anything, after the
  ``headers``, or in the middle, after ``after_deltas`` (5)
- ``pings``: only pings, one each ``interval_ms`` (500), for ``seconds``, after ``after_deltas``
- ``drop``: the connection is lost. ``where`` as above, else after ``after_deltas``; ``how``: ``close``
  (a chunked body without its end) or ``reset`` (TCP)
- ``end``: a proper end of the body too early, after ``after_deltas``; or ``without``: ``message_stop``
  only
- ``stream_error``: ``event: error`` after a 200. ``after_deltas``, ``type``, ``message``,
  ``error_code``, or raw ``body``. A request that does not stream gets a 500
- ``truncate``: the text is cut and ``stop_reason`` is ``max_tokens``
- ``schema``: the answer breaks the schema. ``violation``: ``type``, ``missing`` or ``enum``
- ``extra_keys``: ``keys`` are added to the answer
- ``refusal``: ``stop_reason`` ``refusal`` with ``stop_details``. ``category``, ``text`` (none: empty
  content)
- ``rubbish``: a 200 that is no message. ``rubbish``: ``html``, ``null``, ``empty_object``,
  ``error_body``, ``text``, ``bad_json``, ``no_events``, ``unnamed_events``, ``bad_event``
- ``no_usage``: a good answer without ``usage``
- ``answer``: the answer is ``answer`` (any JSON), ``text``: it is ``text``, whatever the schema says
- ``tools``: the model asks for the tool ``calls`` ``[{"name", "input"}]``, again and again if the rule
  fires
- ``slow_connect``: a new connection is accepted and not read for ``seconds``; ``agent`` and ``model`` do
  not apply, because a connection has none yet

``count_tokens`` and ``models`` know the kinds ``status`` and ``delay``.
"""
