"""Attention over blocks that need not be neighbours: one interface, three back-ends."""
