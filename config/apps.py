from django.apps import AppConfig


class KontorConfig(AppConfig):
    name = "config"
    label = "kontor"
    verbose_name = "Kontor"

    def ready(self) -> None:
        """Register the system checks."""
        from config import checks  # noqa: F401, PLC0415 - checks need the app registry
