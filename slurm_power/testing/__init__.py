"""Shipped stand-ins that behave: they pass the same contracts as the real parts."""
