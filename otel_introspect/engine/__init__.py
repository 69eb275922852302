"""What finds out where a slow entry span is stuck: standard library only, no OpenTelemetry, no framework."""
