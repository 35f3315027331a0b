"""Jobs, and which of them wait, run slower or move when power is short. Pure."""
