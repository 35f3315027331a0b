"""The OpenAI-compatible HTTP service and the steering API."""
