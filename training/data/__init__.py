"""Tokenised, memory-mapped datasets and the order in which they are read."""
