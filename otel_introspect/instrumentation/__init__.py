"""Instrumentors: what ``opentelemetry-instrument`` runs, one for the core and one for each framework."""
