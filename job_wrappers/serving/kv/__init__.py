"""Blocks of the KV cache: who holds which, which can be found again, how many fit."""
