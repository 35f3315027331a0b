"""Measurements, not tests: each prints what it saw and writes it under build/bench/."""
