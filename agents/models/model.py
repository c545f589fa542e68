from __future__ import annotations

from django.db import models


class ModelPrice(models.Model):
    """List price of one model from a date on, for prompts from a size on. US dollars per million tokens."""

    model = models.CharField(max_length=64)
    effective_from = models.DateField()
    prompt_tokens_over = models.PositiveIntegerField(
        default=0, help_text="Prompts of more tokens than this (cache reads and writes included) cost this."
    )
    input_usd = models.DecimalField(max_digits=14, decimal_places=8)
    output_usd = models.DecimalField(max_digits=14, decimal_places=8)
    cache_write_5m_usd = models.DecimalField(max_digits=14, decimal_places=8)
    cache_write_1h_usd = models.DecimalField(max_digits=14, decimal_places=8)
    cache_read_usd = models.DecimalField(max_digits=14, decimal_places=8)
    source = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ("model", "-effective_from", "prompt_tokens_over")
        constraints = [
            models.UniqueConstraint(
                fields=["model", "effective_from", "prompt_tokens_over"], name="one_price_per_model_date_band"
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} from {self.effective_from} over {self.prompt_tokens_over}"


class ModelState(models.Model):
    """What all workers know of one model at one key: breaker, rate limit, in-flight cap, stop-the-line."""

    class Breaker(models.TextChoices):
        CLOSED = "closed", "working"
        OPEN = "open", "not working"
        PROBING = "probing", "being tried"

    model = models.CharField(max_length=64)
    api_key_env = models.CharField(max_length=64, default="ANTHROPIC_API_KEY")
    breaker = models.CharField(max_length=8, choices=Breaker, default=Breaker.CLOSED)
    failures = models.PositiveIntegerField(default=0, help_text="Transient failures in a row.")
    closed_until = models.DateTimeField(
        null=True, blank=True, help_text="No call starts before this: rate limit, overload or breaker."
    )
    reason = models.CharField(max_length=300, blank=True)
    in_flight_cap = models.PositiveIntegerField(default=1_000)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["model", "api_key_env"], name="one_state_per_model_and_key")]

    def __str__(self) -> str:
        return f"{self.model}: {self.breaker}"
