from django.apps import AppConfig

from agents.spec import register


class LeadsConfig(AppConfig):
    name = "leads"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Declare the sales kind, what can be done to many leads, and what the simulator answers for it."""
        # Imported here because all need the app registry; importing the last two registers what is in them.
        from leads import department, giving, simulated  # noqa: F401, PLC0415

        register(department.SALES)
