"""The paged-KV serving engine will live here."""
