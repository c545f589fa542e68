from django.apps import AppConfig

from config import telemetry


class KontorConfig(AppConfig):
    name = "config"
    label = "kontor"
    verbose_name = "Kontor"

    def ready(self) -> None:
        """Register the system checks, and send spans where they are wanted."""
        from config import checks  # noqa: F401, PLC0415 - checks need the app registry

        telemetry.start()
