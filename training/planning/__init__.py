"""Decisions before and about a run, without torch: plans, schedules, costs, clocks."""
