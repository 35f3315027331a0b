"""The processes of one model: who computes what, and how they are told."""
