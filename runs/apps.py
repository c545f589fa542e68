from anymail.signals import tracking
from django.apps import AppConfig


class RunsConfig(AppConfig):
    name = "runs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Hear what mail providers report."""
        from runs import provider_events  # noqa: PLC0415 - it needs the app registry

        tracking.connect(provider_events.receive)
