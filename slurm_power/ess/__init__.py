"""Battery, tariff, dispatch plan and the guard of every setpoint. Pure."""
