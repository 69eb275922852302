"""What ``otel-introspect migrate`` finds of older tools, and what takes their place. Nothing that it reads is run."""
