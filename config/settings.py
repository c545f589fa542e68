"""Every setting, from the environment. The table in README.md explains each variable."""

import sys
import tomllib
from pathlib import Path

import environ
from csp.constants import NONE, SELF

from config.logging import build_logging

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = tomllib.loads((BASE_DIR / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
env = environ.Env()
if (BASE_DIR / ".env").exists():
    env.read_env(BASE_DIR / ".env")

# --- Django ---------------------------------------------------------------------------------------------------
DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="")  # config.checks refuses the empty one outside of DEBUG
if not SECRET_KEY:
    SECRET_KEY = "insecure-key-for-development-and-tests-only"
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
INTERNAL_IPS = ["127.0.0.1"]

INSTALLED_APPS = [
    "config.apps.KontorConfig",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "django.contrib.staticfiles",
    "django_htmx",
    "django_q",
    "agents",
    "runs",
    "leads",
]
MIDDLEWARE = [
    "config.probes.probes",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    # After WhiteNoise, which brings its own. Django pads what it compresses and masks the CSRF token anew on every
    # page, so the length of an answer tells nothing (BREACH).
    "config.compression.CompressWhole",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "runs.zones.PersonalTimes",
    "runs.views.not_allowed.SayNotAllowed",
]
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "config.context.kontor",
            ]
        },
    }
]
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "runs.backends.MembershipBackend"]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "runs:overview"
LOGOUT_REDIRECT_URL = "login"
CSRF_FAILURE_VIEW = "runs.late_forms.answer_csrf"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 8}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "var" / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "config.static.CollectedStorage"},
}
WHITENOISE_USE_FINDERS = True
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]
DATA_UPLOAD_MAX_MEMORY_SIZE = 10 * 1024 * 1024
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.bool("SECURE_COOKIES", default=False)
# Nothing on a page comes from elsewhere, and nothing is written into it: a text that slipped through unescaped stays
# a text. Styles and scripts are files; data: is what Tabler draws its ticks and arrows from.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("BEHIND_TLS_PROXY", default=False) else None

# --- Database -------------------------------------------------------------------------------------------------
DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{BASE_DIR / 'var' / 'kontor.sqlite3'}")}
_database = DATABASES["default"]
IS_SQLITE = _database["ENGINE"] == "django.db.backends.sqlite3"
if IS_SQLITE:
    # FULL: a send must survive a power cut. Tests, which have nothing to lose, set OFF.
    _synchronous = env.str("SQLITE_SYNCHRONOUS", default="FULL")
    _database["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": f"PRAGMA journal_mode=WAL; PRAGMA synchronous={_synchronous}; PRAGMA cache_size=-16000; "
        "PRAGMA wal_autocheckpoint=4000; PRAGMA journal_size_limit=67108864;",
    }
    # A file, not memory: the engine's database thread opens a connection of its own.
    _database["TEST"] = {"NAME": Path(_database["NAME"]).with_suffix(".test.sqlite3")}
else:
    _database["CONN_HEALTH_CHECKS"] = True
    # A network that cuts a connection silently would let whoever uses it next wait for as long as the system tries
    # again: a quarter of an hour. What DATABASE_URL says of it wins. Seconds, but for the last, in milliseconds.
    _patience = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 20_000}
    _database["OPTIONS"] = {**_patience, **_database.get("OPTIONS", {})}
    # Under ASGI every request has a thread of its own: connections that are kept for it would pile up.
    _database["CONN_MAX_AGE"] = 0
    # They are handed on from thread to thread instead; a worker's processes, which are no web process, end theirs.
    if env.bool("KONTOR_KEEP_CONNECTIONS", default="config.asgi" in sys.modules):
        _database["ENGINE"] = "config.postgresql"
VAR_DIR = BASE_DIR / "var"
VAR_DIR.mkdir(exist_ok=True)

# --- Model API ------------------------------------------------------------------------------------------------
# Given explicitly to the SDK, so that nothing but this line decides where data goes.
ANTHROPIC_BASE_URL = env.str("ANTHROPIC_BASE_URL", default="https://api.anthropic.com")
SIMULATED = env.bool("KONTOR_SIMULATED", default=False)
RETRY_AFTER_CAP_SECONDS = env.int("KONTOR_RETRY_AFTER_CAP_SECONDS", default=300)
TOOLS_NETWORK = env.bool("KONTOR_TOOLS_NETWORK", default=True)
TOOLS_ALLOW_PRIVATE = env.bool("KONTOR_TOOLS_ALLOW_PRIVATE", default=False)

# --- Engine ---------------------------------------------------------------------------------------------------
SHIFTS = env.int("SHIFTS", default=2)
SHIFT_CONCURRENCY = env.int("SHIFT_CONCURRENCY", default=100)
SHIFT_SECONDS = env.int("SHIFT_SECONDS", default=300)
LEASE_SECONDS = env.int("LEASE_SECONDS", default=30)

# Work that goes round in circles waits for a person: the most steps on one item in 24 hours, where a lead that is
# written to, followed up and answered has about 40, and how many times its usual cost a step may come to.
LOOP_STEPS_PER_DAY = env.int("KONTOR_LOOP_STEPS_PER_DAY", default=80)
LOOP_TIMES_MEDIAN = env.int("KONTOR_LOOP_TIMES_MEDIAN", default=20)

# --- Reviews --------------------------------------------------------------------------------------------------
REVIEW_UNDO_SECONDS = env.int("KONTOR_REVIEW_UNDO_SECONDS", default=60)
REVIEW_NOTIFY_MINUTES = env.int("KONTOR_REVIEW_NOTIFY_MINUTES", default=60)
REVIEW_FELL_THROUGH_DAYS = env.int("KONTOR_REVIEW_FELL_THROUGH_DAYS", default=7)

# --- Queue ----------------------------------------------------------------------------------------------------
# Why each value: django-q2's defaults retry for ever, prefetch what they cannot run and acknowledge slowly.
# A shift's task outlives `retry` and is then presented again; it finds its token used and returns at once.
Q_CLUSTER = {
    "name": "kontor",
    # Two for each shift, because one drains while its successor works; one each for try-outs, sending, all the rest.
    "workers": 2 * SHIFTS + 3,
    "queue_limit": 2,
    "bulk": 1,
    "poll": 0.05,
    "timeout": 60,
    "retry": 150,
    "ack_failures": True,
    "max_attempts": 1,
    "save_limit": -1,
    "catch_up": False,
    "guard_cycle": 0.5,
    "label": "Queue",
}
if _redis := env.str("REDIS_URL", default=""):
    Q_CLUSTER["redis"] = _redis
else:
    Q_CLUSTER["orm"] = "default"

# --- Mail and alerts ------------------------------------------------------------------------------------------
# EMAIL_URL names a mail server; EMAIL_BACKEND a class instead: a provider of django-anymail, or Django's files.
_email_backend = env.str("EMAIL_BACKEND", default="")
EMAIL_IS_CONFIGURED = bool(env.str("EMAIL_URL", default="") or _email_backend)
vars().update(env.email_url_config(env.str("EMAIL_URL", default="") or "consolemail://"))
if _email_backend:
    EMAIL_BACKEND = _email_backend
EMAIL_FILE_PATH = env.str("EMAIL_FILE_PATH", default=str(VAR_DIR / "mailbox"))
EMAIL_TIMEOUT = 10
ANYMAIL = env.json("ANYMAIL", default={})
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.str("EMAIL_FROM", default="kontor@localhost")
SLACK_WEBHOOK_URL = env.str("KONTOR_SLACK_WEBHOOK_URL", default="")
# Alerts are read outside the site: links in them need the address at which people reach it.
BASE_URL = env.str("KONTOR_BASE_URL", default="http://127.0.0.1:8000").rstrip("/")

# --- Sending --------------------------------------------------------------------------------------------------
# How long one step of a conversation with a mail server may take; the last, after the mail, four times that.
SEND_TIMEOUT_SECONDS = env.float("KONTOR_SEND_TIMEOUT_SECONDS", default=15)
# Longer than connecting, sending and closing together: only what a lost sender left is unsure.
SEND_LEASE_SECONDS = env.float("KONTOR_SEND_LEASE_SECONDS", default=120)
# Sending is held when the last mails look unusual. Fewer than the least say nothing. Providers warn at 5 % of
# bounces and suspend at 10 %; half of all drafts rejected means that agents write what nobody wants.
SEND_WATCH_LAST, SEND_WATCH_LEAST = 50, 10
SEND_MAX_BOUNCED_PERCENT = env.int("KONTOR_SEND_MAX_BOUNCED_PERCENT", default=8)
SEND_MAX_REJECTED_PERCENT = env.int("KONTOR_SEND_MAX_REJECTED_PERCENT", default=50)
# More than so many times the usual in an hour, once there are more than the floor.
SEND_HOURLY_TIMES = env.float("KONTOR_SEND_HOURLY_TIMES", default=5)
SEND_HOURLY_FLOOR = env.int("KONTOR_SEND_HOURLY_FLOOR", default=50)

# --- Log ------------------------------------------------------------------------------------------------------
LOGGING = build_logging(
    env.str("LOG_LEVEL", default="INFO"), style=env.str("LOG_FORMAT", default="auto"), is_debug=DEBUG
)

# --- Observation ----------------------------------------------------------------------------------------------
# Spans are exported when this is set; the exporter reads it and OTEL_EXPORTER_OTLP_HEADERS by itself.
OTEL_ENDPOINT = env.str("OTEL_EXPORTER_OTLP_ENDPOINT", default="")
METRICS_TOKEN = env.str("KONTOR_METRICS_TOKEN", default="")
PING_URL = env.str("KONTOR_PING_URL", default="")
