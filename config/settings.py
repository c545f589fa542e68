"""Every setting, from the environment. The table in README.md explains each variable."""

import tomllib
from pathlib import Path

import environ

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
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
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
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "runs:overview"
LOGOUT_REDIRECT_URL = "login"
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
WHITENOISE_USE_FINDERS = True
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]
DATA_UPLOAD_MAX_MEMORY_SIZE = 10 * 1024 * 1024
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.bool("SECURE_COOKIES", default=False)
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
    # Under ASGI every request has a thread of its own: connections that are kept would pile up.
    _database["CONN_MAX_AGE"] = 0
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

# --- Queue ----------------------------------------------------------------------------------------------------
# Why each value: django-q2's defaults retry for ever, prefetch what they cannot run and acknowledge slowly.
# A shift's task outlives `retry` and is then presented again; it finds its token used and returns at once.
Q_CLUSTER = {
    "name": "kontor",
    "workers": 2 * SHIFTS + 2,
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
EMAIL_IS_CONFIGURED = bool(env.str("EMAIL_URL", default=""))
vars().update(env.email_url_config(env.str("EMAIL_URL", default="") or "consolemail://"))
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.str("EMAIL_FROM", default="kontor@localhost")
SLACK_WEBHOOK_URL = env.str("KONTOR_SLACK_WEBHOOK_URL", default="")
# Alerts are read outside the site: links in them need the address at which people reach it.
BASE_URL = env.str("KONTOR_BASE_URL", default="http://127.0.0.1:8000").rstrip("/")

# --- Log ------------------------------------------------------------------------------------------------------
LOGGING = build_logging(
    env.str("LOG_LEVEL", default="INFO"), style=env.str("LOG_FORMAT", default="auto"), is_debug=DEBUG
)

# --- Observation ----------------------------------------------------------------------------------------------
# Spans are exported when this is set; the exporter reads it and OTEL_EXPORTER_OTLP_HEADERS by itself.
OTEL_ENDPOINT = env.str("OTEL_EXPORTER_OTLP_ENDPOINT", default="")
METRICS_TOKEN = env.str("KONTOR_METRICS_TOKEN", default="")
PING_URL = env.str("KONTOR_PING_URL", default="")
