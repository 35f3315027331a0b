"""Caps, leases and what an agent borrowed from a GPU. Pure; also the agent's wire messages."""
