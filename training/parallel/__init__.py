"""Pipeline x tensor x data x expert parallel: who holds what, and what travels between ranks."""
