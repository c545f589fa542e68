"""The project's own files: lock files, environment, settings and what is written about them, make's sentences."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config import environment
from config.environment import DEVELOPMENT, RUNTIME, Environment, EnvironmentProblem, require_venv
from tests.engine_size import BESIDE, LIMIT, PARTS, SCRIPT_LIMIT, code_lines, count_lines, describe_all, script_lines
from tests.lint import LOCKS, find_places

ROOT = Path(__file__).resolve().parent.parent
MAKE = shutil.which("make") or "make"


def read_versions(lock: str) -> dict[str, str]:
    """The packages of a lock file and their versions."""
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


def variables_of_settings() -> set[str]:
    """Every environment variable that settings.py reads, and those that departments name by default."""
    found = re.findall(r'env\.[a-z]+\(\s*"([A-Z_]+)"', (ROOT / "config" / "settings.py").read_text())
    return {*found, "ANTHROPIC_API_KEY", "KONTOR_WEBHOOK_SECRET"}


def test_the_development_lock_contains_the_runtime_lock_version_for_version() -> None:
    runtime, development = read_versions(RUNTIME), read_versions(DEVELOPMENT)
    assert len(runtime) > 40
    assert runtime.items() <= development.items()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_a_hash(lock: str) -> None:
    for entry in re.split(r"^(?=[a-z0-9])", (ROOT / lock).read_text(), flags=re.MULTILINE):
        assert not entry.strip() or "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_lock_files_name_no_index() -> None:
    assert find_places() == []


@pytest.mark.parametrize(
    "line",
    ["--index-url https://packages.example/simple", "-i packages", "--find-links /srv/wheels", "a @ file:///srv/a.whl"],
)
def test_a_lock_file_that_names_a_place_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "some.lock").write_text(f"anyio==4.0\n{line}\n")
    assert find_places(["some.lock"], tmp_path) == ["some.lock"]


def test_every_test_in_a_browser_is_marked_as_one() -> None:
    # Playwright leaves a running loop in its process: unmarked, it would break whatever runs there afterwards.
    for file in (ROOT / "tests" / "browser").glob("test_*.py"):
        assert "pytestmark = pytest.mark.browser" in file.read_text(), file.name


def test_the_engine_stays_small() -> None:
    counts = count_lines()
    assert {"router", "dispatch", "shift", "leases"} <= counts.keys()
    assert sum(counts.values()) <= LIMIT


def test_the_whole_engine_is_counted_too() -> None:
    core, everything = count_lines(), count_lines(names=(*PARTS, *BESIDE))
    assert everything.keys() >= {*core, *BESIDE}
    assert f"{sum(everything.values())} lines of code" in describe_all()


def test_our_own_scripts_stay_few() -> None:
    counts = script_lines()
    assert {"page.js", "live.js"} <= counts.keys()
    assert sum(counts.values()) < SCRIPT_LIMIT, counts


def test_comments_of_scripts_are_not_counted(tmp_path: Path) -> None:
    (tmp_path / "static" / "js").mkdir(parents=True)
    (tmp_path / "static" / "js" / "a.js").write_text("/* What\n * it is. */\n\n// Why\nlet a = 1; // one\nlet b;\n")
    assert script_lines(tmp_path) == {"a.js": 2}


def test_blank_lines_comments_and_docstrings_are_no_code() -> None:
    source = (
        '"""What it is."""\n\n# Why\nx = (\n    1,  # one\n)\n\n\ndef f() -> str:\n    """What."""\n    return "a"\n'
    )
    assert code_lines(source) == {4, 5, 6, 9, 11}


def test_the_example_names_every_setting_and_no_other() -> None:
    named = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert named == variables_of_settings()


def test_the_readme_explains_every_setting_and_no_other() -> None:
    named = set(re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named == variables_of_settings()


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert targets
    shown = subprocess.run([MAKE, "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [target for target in targets[1].split() if f"make {target} " not in shown] == []


def run_without_python(tmp_path: Path, version: str = "") -> subprocess.CompletedProcess[str]:
    """``make demo`` on a machine that has no Python, or one whose version check fails."""
    if version:
        fake = tmp_path / "python3"
        fake.write_text("#!/bin/sh\nexit 1\n")
        fake.chmod(0o755)
    return subprocess.run([MAKE, "demo"], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)


@pytest.mark.parametrize("version", ["", "3.9"])
def test_a_missing_or_old_python_gets_a_sentence(tmp_path: Path, version: str) -> None:
    answer = run_without_python(tmp_path, version)
    assert answer.returncode != 0
    assert "Kontor needs Python 3.11 or newer" in answer.stdout
    assert "make demo PYTHON=" in answer.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    root = tmp_path_factory.mktemp("checkout")
    (root / RUNTIME).write_text("")
    fresh = Environment(root)
    assert fresh.ensure(RUNTIME)
    return fresh


def test_a_python_without_venv_gets_a_sentence_with_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    # What Debian's python3 without python3-venv does; this Python cannot be made to lack it.
    monkeypatch.setattr(environment, "run_quietly", lambda command: False)
    with pytest.raises(EnvironmentProblem, match=r"apt install python3\.\d+-venv"):
        require_venv()


class TestEnvironment:
    """A real environment in a checkout of its own, whose lock file asks for nothing."""

    def test_it_is_built_once(self, built: Environment) -> None:
        before = built.stamp.stat().st_mtime_ns
        assert not built.ensure(RUNTIME)
        assert built.stamp.stat().st_mtime_ns == before

    def test_a_changed_lock_file_is_installed_into_what_is_there(self, built: Environment) -> None:
        before = built.python.lstat().st_ino
        (built.root / RUNTIME).write_text("# changed\n")
        assert not built.has(RUNTIME)
        assert built.ensure(RUNTIME)
        assert built.has(RUNTIME)
        assert built.python.lstat().st_ino == before

    def test_a_half_built_one_is_noticed_and_built_again(
        self, built: Environment, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (built.path / "half-a-package").touch()
        built.building.touch()
        assert not built.has(RUNTIME)
        assert built.ensure(RUNTIME)
        assert built.has(RUNTIME)
        assert not (built.path / "half-a-package").exists()
        assert "half-built" in capsys.readouterr().out

    def test_one_whose_python_is_gone_is_not_taken_for_whole(self, built: Environment, tmp_path: Path) -> None:
        link = built.python.readlink()
        built.python.unlink()
        built.python.symlink_to(tmp_path / "gone")
        assert not built.has(RUNTIME)
        built.python.unlink()
        built.python.symlink_to(link)
        assert built.has(RUNTIME)

    def test_the_development_environment_serves_the_demo_too(self, built: Environment) -> None:
        (built.root / DEVELOPMENT).write_text("# tools\n")
        assert built.ensure(DEVELOPMENT)
        assert built.has(RUNTIME)


def test_the_pictures_are_taken_without_django() -> None:
    """``make shot`` runs beside a demo of its own and has no settings; no port answers here, which it says."""
    given = {"PATH": os.environ["PATH"], "WEB_PORT": "1", "DEMO_PASSWORD": "x"}
    command = [sys.executable, "-m", "tests.shot"]
    answer = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert re.match("There is no Chromium|No picture was taken of login", answer.stdout), answer.stderr
