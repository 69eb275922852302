"""The shop's database schema, step by step."""
