"""The demonstration: one compressed day on a real Slurm cluster, without and with power management."""
