"""Load forecasts with quantiles. Pure."""
