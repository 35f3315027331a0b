"""DynamoLLM's managers (pure decisions) will live here."""
