"""What was measured in the last 60 days, kept in the state directory: graphs without a Prometheus (docs/history.md)."""
