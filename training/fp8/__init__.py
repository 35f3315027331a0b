"""FP8 blocks: quantisers, and the back-ends that multiply what they make."""
