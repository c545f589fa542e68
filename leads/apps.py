from django.apps import AppConfig

from agents.spec import register


class LeadsConfig(AppConfig):
    name = "leads"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Declare the sales kind, and what the simulator answers for it."""
        # Imported here because both need the app registry; importing the second registers the answers.
        from leads import department, simulated  # noqa: F401, PLC0415

        register(department.SALES)
