"""`slurm-power-train`: starts `training` on the ranks of a job, and shows what it did. torch is imported late."""
