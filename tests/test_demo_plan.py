"""What the demo decides before it starts anything."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import environ
import pytest

from config.demo_plan import (
    CLAUDE_URL,
    DemoProblem,
    Plan,
    keep_secrets,
    marker_of,
    read_plan,
    require_free_ports,
    start_over,
)
from runs import marker


@pytest.fixture
def busy_port() -> Iterator[int]:
    """A port on which something listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def plan_of(var: Path = Path("var"), **given: str) -> Plan:
    """The plan for an environment."""
    return read_plan(given, var)


def test_without_a_key_the_simulator_answers() -> None:
    plan = plan_of(SIMULATOR_PORT="8911")
    assert plan.endpoint.is_simulated
    environment = plan.environment({})
    assert environment["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:8911"
    assert environment["KONTOR_SIMULATED"] == "1"
    assert environment["KONTOR_TOOLS_NETWORK"] == "0"


def test_with_a_key_claude_answers_and_the_plan_says_so() -> None:
    plan = plan_of(ANTHROPIC_API_KEY="sk-1")
    assert "Claude" in plan.endpoint.description
    environment = plan.environment({})
    assert environment["ANTHROPIC_BASE_URL"] == CLAUDE_URL
    assert environment["ANTHROPIC_API_KEY"] == "sk-1"
    assert environment["KONTOR_SIMULATED"] == "0"
    assert "KONTOR_TOOLS_NETWORK" not in environment


def test_another_server_is_named_in_the_plan_and_needs_no_key() -> None:
    plan = plan_of(ANTHROPIC_BASE_URL="http://models.internal:9000/")
    assert plan.endpoint.url == "http://models.internal:9000"
    assert plan.endpoint.url in plan.endpoint.description
    assert not plan.endpoint.is_simulated
    assert plan.environment({})["ANTHROPIC_API_KEY"]


def test_claude_without_a_key_is_refused() -> None:
    with pytest.raises(DemoProblem, match="Set ANTHROPIC_API_KEY"):
        plan_of(ANTHROPIC_BASE_URL=CLAUDE_URL)


def test_simulated_and_real_answers_do_not_share_a_database(tmp_path: Path) -> None:
    simulated, real = plan_of(tmp_path), plan_of(tmp_path, ANTHROPIC_API_KEY="sk-1")
    assert simulated.database_url != real.database_url


def test_no_proxy_stands_before_the_simulator() -> None:
    environment = plan_of(https_proxy="http://proxy:3128", no_proxy="intranet").environment({})
    assert environment["no_proxy"] == environment["NO_PROXY"] == "intranet,127.0.0.1,localhost"


def test_what_an_env_file_may_say_about_an_installation_does_not_reach_the_demo() -> None:
    environment = plan_of(SECURE_COOKIES="1", REDIS_URL="redis://queue").environment({"SECRET_KEY": "kept"})
    assert environment["SECURE_COOKIES"] == "0"
    assert environment["REDIS_URL"] == ""
    assert environment["SECRET_KEY"] == "kept"
    assert environment["KONTOR_PING_URL"] == environment["KONTOR_SLACK_WEBHOOK_URL"] == ""


def test_links_that_the_demo_prints_lead_to_its_own_port() -> None:
    assert plan_of(WEB_PORT="8010").environment({})["KONTOR_BASE_URL"] == "http://127.0.0.1:8010"


@pytest.mark.parametrize("text", ["eighty", "0", "70000", "-1", "８０"])
def test_a_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DemoProblem, match="WEB_PORT is .* number from 1 to 65535"):
        plan_of(WEB_PORT=text)


def test_one_port_for_both_servers_is_refused() -> None:
    with pytest.raises(DemoProblem, match="both 8901"):
        plan_of(WEB_PORT="8901")


def test_a_port_in_use_is_named_with_what_to_type_instead(busy_port: int) -> None:
    with pytest.raises(DemoProblem, match=rf"Port {busy_port}, .*web server.* make demo WEB_PORT=\d+"):
        require_free_ports(plan_of(WEB_PORT=str(busy_port), SIMULATOR_PORT=str(free_port())))
    with pytest.raises(DemoProblem, match=rf"Port {busy_port}, .*simulator.* make demo SIMULATOR_PORT=\d+"):
        require_free_ports(plan_of(WEB_PORT=str(free_port()), SIMULATOR_PORT=str(busy_port)))


def test_the_simulators_port_does_not_matter_to_claude(busy_port: int) -> None:
    require_free_ports(plan_of(WEB_PORT=str(free_port()), SIMULATOR_PORT=str(busy_port), ANTHROPIC_API_KEY="sk-1"))


def test_a_given_database_is_used_and_never_reset(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, DATABASE_URL="postgres://db/kontor")
    assert plan.environment({})["DATABASE_URL"] == "postgres://db/kontor"
    assert plan.own_database is None
    with pytest.raises(DemoProblem, match="RESET=1 deletes only the demo's own files"):
        plan_of(tmp_path, DATABASE_URL="postgres://db/kontor", RESET="1")


def test_starting_over_deletes_the_demos_files_and_no_others(tmp_path: Path) -> None:
    come_so_far = f"newest-{marker_of(tmp_path / 'demo.sqlite3')}.json"
    own = ["demo.sqlite3", "demo.sqlite3-wal", "demo.sqlite3-shm", "demo.env", come_so_far]
    others = ["kontor.sqlite3", "demo-live.sqlite3", "bench.json", "newest-0123456789ab.json"]
    for name in own + others:
        (tmp_path / name).touch()
    start_over(plan_of(tmp_path, RESET="1"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_the_marker_of_the_demos_database_is_the_one_that_the_engine_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path)
    assert plan.own_database is not None
    settings = environ.Env.db_url_config(plan.database_url)
    monkeypatch.setattr("runs.marker.connection", SimpleNamespace(settings_dict=settings))
    assert marker.marker_path().name == f"newest-{marker_of(plan.own_database)}.json"


def test_secrets_are_made_once_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    path = tmp_path / "demo.env"
    first = keep_secrets(path)
    assert len(first["SECRET_KEY"]) >= 50
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keep_secrets(path) == first
    assert keep_secrets(tmp_path / "other.env") != first


def test_a_secret_that_is_missing_is_added_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "demo.env"
    path.write_text("DEMO_PASSWORD=chosen\nSECRET_KEY=\n")
    kept = keep_secrets(path)
    assert kept["DEMO_PASSWORD"] == "chosen"
    assert kept["SECRET_KEY"]
    assert keep_secrets(path) == kept
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
