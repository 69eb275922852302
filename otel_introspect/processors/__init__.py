"""Span processors: what the OpenTelemetry SDK calls when a span starts and ends."""
