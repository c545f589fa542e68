"""Spans go to an OTLP endpoint over HTTP. Imported by ``config.telemetry`` only where one is set."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def start_export(version: str) -> None:
    """Export in batches, from a thread that a forked worker starts anew. Called once a process.

    The exporter reads OTEL_EXPORTER_OTLP_ENDPOINT and its headers itself; OTEL_SERVICE_NAME changes the name.
    """
    resource = Resource.create({"service.name": "kontor", "service.version": version})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
