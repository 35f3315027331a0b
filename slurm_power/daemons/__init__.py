"""Thin shells around the decisions."""
