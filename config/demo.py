"""``make demo``: Kontor with sample leads on this machine, until Ctrl-C."""

from __future__ import annotations

import fcntl
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from config.demo_plan import DemoProblem, Plan, keep_secrets, read_plan, require_free_ports, start_over
from config.processes import Processes, foreground

ROOT = Path(__file__).resolve().parent.parent
WEB_START_SECONDS = 60
PIPELINE_SECONDS = 3_600


@contextmanager
def only_demo(var: Path) -> Iterator[None]:
    """Refuse a second demo in the same checkout: its RESET=1 would delete the database of the first."""
    with (var / "demo.lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoProblem("A demo of this checkout is running already. Stop it first, with Ctrl-C.") from None
        yield


class Demo:
    """The running demo: starts what is missing as soon as what it needs is there."""

    def __init__(self, plan: Plan, password: str, processes: Processes) -> None:
        self.plan = plan
        self.password = password
        self.processes = processes
        self._told_at = time.monotonic()
        self._is_open = False

    def start(self) -> None:
        """Start what the worker needs, and the web server."""
        manage = [sys.executable, "manage.py"]
        if self.plan.endpoint.is_simulated:
            port = str(self.plan.simulator_port)
            self.processes.start("simulator", [*manage, "simulator", "--port", port], stops_last=True)
        web = [sys.executable, "-m", "uvicorn", "config.asgi:application"]
        address = ["--host", "127.0.0.1", "--port", str(self.plan.web_port)]
        quiet = [
            "--no-access-log",
            "--log-level",
            "warning",
            "--lifespan",
            "off",
            "--timeout-graceful-shutdown",
            "3",
        ]
        # At its end uvicorn calls it an error that browsers hold their event streams open.
        self.processes.start("web", [*web, *address, *quiet], is_quiet_at_end=True)

    def tick(self) -> None:
        """Once the web server answers, say where to look and let the work begin."""
        if self._is_open:
            return
        if self._web_answers():
            self._is_open = True
            self.processes.say(self._welcome())
            manage = [sys.executable, "manage.py"]
            # First the command that waits and reports, so that it counts what the worker does from its start.
            wait = ["run_pipeline", "--all", "--wait", str(PIPELINE_SECONDS)]
            self.processes.start("pipeline", [*manage, *wait], is_service=False)
            self.processes.start("worker", [*manage, "worker"])
        elif time.monotonic() - self._told_at > WEB_START_SECONDS:
            self._told_at = time.monotonic()
            self.processes.say(f"The web server has not answered for {WEB_START_SECONDS} s. Still waiting.")

    def _web_answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.plan.web_port, timeout=2)
        try:
            connection.request("GET", "/login/")
            connection.getresponse()
            return True
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _welcome(self) -> str:
        line = "-" * 78
        own = self.plan.own_database
        return "\n".join(
            [
                "",
                line,
                f"  Kontor is running:   http://127.0.0.1:{self.plan.web_port}/",
                f"  Log in as            demo    password  {self.password}",
                f"  Answers come from    {self.plan.endpoint.description}",
                f"  Data is kept in      {os.path.relpath(own) if own else 'the database of DATABASE_URL'}",
                "",
                "  The sales department is working on the leads now. Ctrl-C stops everything;",
                "  `make demo` goes on where it stopped" + ("; `make demo RESET=1` starts over." if own else "."),
                line,
                "",
            ]
        )


def prepare(environment: Mapping[str, str], password: str) -> None:
    """Tables, department, user, documents and sample leads; what is there already stays."""
    command = [sys.executable, "manage.py", "demo_data"]
    # A session of its own: at Ctrl-C it finishes its step instead of printing a traceback.
    child = subprocess.Popen(command, cwd=ROOT, env={**environment, "DEMO_PASSWORD": password}, start_new_session=True)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
    if code:
        raise DemoProblem("The demo's data could not be prepared, for the reason above.")


def run_demo(given: Mapping[str, str], var: Path) -> int:
    """Prepare and run the demo until it is stopped; the exit code. DemoProblem if it cannot start."""
    # The second is where collected static files would lie; whitenoise warns where it is missing.
    for folder in (var, ROOT / "var" / "static"):
        folder.mkdir(parents=True, exist_ok=True)
    plan = read_plan(given, var)
    with only_demo(var):
        require_free_ports(plan)
        print(f"Kontor: preparing the demo. Answers come from {plan.endpoint.description}.", flush=True)
        if plan.own_database is None:
            print("The demo uses the database that DATABASE_URL names.", flush=True)
        if plan.is_reset:
            start_over(plan, var)
        kept = keep_secrets(var / "demo.env")
        password = kept.pop("DEMO_PASSWORD")
        environment = plan.environment(kept)
        prepare(environment, password)
        processes = Processes(environment=environment, directory=ROOT)
        demo = Demo(plan, password, processes)
        code = processes.run(demo.start, demo.tick)
        if processes.failed:
            raise DemoProblem(f"The demo stopped because its {processes.failed} process ended: its reason is above.")
        processes.say("Stopped. Nothing is lost: `make demo` goes on where it was.")
    return code


def main(var: Path = ROOT / "var") -> int:
    """The command ``python -m config.demo``: 0 after Ctrl-C, 1 with a sentence when it cannot run."""
    # Until there are processes to stop, a terminal that closes is the same as Ctrl-C.
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)
    with foreground():
        try:
            return run_demo(os.environ, var)
        except DemoProblem as problem:
            print(problem, file=sys.stderr, flush=True)
            return 1
        except KeyboardInterrupt:
            print("Stopped.", flush=True)
            return 0


if __name__ == "__main__":
    sys.exit(main())
