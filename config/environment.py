"""Builds .venv from a lock file. Runs before anything is installed, so it uses the standard library only.

``python -I config/environment.py requirements.lock`` installs only when the lock differs from what was
installed last; an environment whose building was interrupted is noticed and built again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNTIME, DEVELOPMENT = "requirements.lock", "requirements-dev.lock"
OLDEST = (3, 11)


class EnvironmentProblem(Exception):
    """The environment cannot be built. The text says why and what to do."""


class Environment:
    """The virtual environment of a checkout: whether it is whole, and how it becomes so."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / ".venv"
        self.python = self.path / "bin" / "python"
        self.stamp = self.path / "kontor-locks.json"
        # There while packages are being installed: whoever finds it knows that nobody finished.
        self.building = self.path / "kontor-building"

    def has(self, lock: str) -> bool:
        """Whether exactly this lock file was installed last, completely, and the interpreter still runs."""
        return self._stamped().get(lock) == digest(self.root / lock) and self.is_usable()

    def is_usable(self) -> bool:
        """Whether the interpreter in it starts: it does not after its base was removed or upgraded."""
        if self.building.exists() or not self.python.exists():
            return False
        check = f"import sys; sys.exit(sys.version_info < {OLDEST})"
        return subprocess.run([self.python, "-c", check], capture_output=True, check=False).returncode == 0

    def ensure(self, lock: str) -> bool:
        """Make it match the lock file; True if something was installed. May raise EnvironmentProblem."""
        if self.has(lock):
            return False
        with self._alone():
            if self.has(lock):
                return False
            self._discard_broken()
            started = time.monotonic()
            self._create()
            self._install(lock)
            say(f"The environment is ready after {time.monotonic() - started:.0f} s.")
        return True

    def _discard_broken(self) -> None:
        if not self.path.exists() or self.is_usable():
            return
        say("The environment in .venv is half-built or its Python is gone: it is built again.")
        # Moved first: deleting takes a while, and an interrupted deletion must not look like an environment.
        rubbish = self.root / "var" / f"discarded-venv-{os.getpid()}"
        self.path.rename(rubbish)
        shutil.rmtree(rubbish, ignore_errors=True)

    def _create(self) -> None:
        if self.path.exists():
            self.building.touch()
            return
        require_venv()
        self.path.mkdir()
        self.building.touch()
        say(f"Creating .venv with Python {platform.python_version()}.")
        run([sys.executable, "-m", "venv", str(self.path)], "The virtual environment could not be created.")

    def _install(self, lock: str) -> None:
        if not run_quietly([str(self.python), "-m", "pip", "--version"]):
            run([str(self.python), "-m", "ensurepip"], "pip could not be put into the environment.")
        count = sum(1 for line in (self.root / lock).read_text().splitlines() if line[:1].isalnum())
        say(f"Installing {count} packages from {lock}.")
        pip = [str(self.python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input"]
        problem = "The packages could not be installed: see pip's message above, then run the same command again."
        run([*pip, "--require-hashes", "--requirement", str(self.root / lock)], problem)
        # The development lock contains the runtime lock, version for version (tests/test_project.py).
        locks = [RUNTIME, lock] if lock == DEVELOPMENT else [lock]
        self.stamp.write_text(json.dumps({name: digest(self.root / name) for name in locks}))
        self.building.unlink()

    def _stamped(self) -> dict[str, str]:
        try:
            found = json.loads(self.stamp.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two makes at once must not install into one environment: the second waits."""
        (self.root / "var").mkdir(exist_ok=True)
        with (self.root / "var" / "environment.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def require_venv() -> None:
    """Refuse a Python that cannot make virtual environments: Debian packages that part separately."""
    if run_quietly([sys.executable, "-c", "import ensurepip, venv"]):
        return
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise EnvironmentProblem(
        f"Python {version} at {sys.executable} lacks venv or ensurepip. "
        f"On Debian and Ubuntu run `apt install python{version}-venv`, then the same command again."
    )


def run(command: list[str], problem: str) -> None:
    """Run a command with its output shown; EnvironmentProblem with ``problem`` if it fails."""
    if subprocess.run(command, check=False).returncode:
        raise EnvironmentProblem(problem)


def run_quietly(command: list[str]) -> bool:
    """Whether a command succeeds; its output is dropped."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def say(text: str) -> None:
    """One line for the person at the terminal, at once."""
    print(text, flush=True)


def main(arguments: list[str]) -> int:
    """Build the environment for one lock file; the exit code says whether it is whole."""
    lock = arguments[0] if arguments else RUNTIME
    try:
        Environment(ROOT).ensure(lock)
    except EnvironmentProblem as problem:
        say(str(problem))
        return 1
    except KeyboardInterrupt:
        say("Interrupted. Run the same command again to finish.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
