from __future__ import annotations

from django.db import models


class SignInAttempt(models.Model):
    """One try to sign in, or to have a password reset, that has not succeeded. Kept for a day."""

    name = models.CharField(max_length=150, help_text="Who they said they are; a hash where there is nobody of it.")
    address = models.CharField(max_length=45, help_text="Of the network.")
    at = models.DateTimeField()

    class Meta:
        indexes = [
            # sign_in: how many of a name lately.
            models.Index(fields=["name", "at"], name="sign_in_attempts"),
            # sign_in: what is old enough to be forgotten.
            models.Index(fields=["at"], name="sign_in_old"),
        ]

    def __str__(self) -> str:
        return f"{self.name} from {self.address}"
