"""The loop: plan, run, sample, hand out; and what can be changed while it turns."""
