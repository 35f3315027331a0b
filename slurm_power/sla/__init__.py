"""The GPU service quality proof (pure arithmetic) will live here."""
