"""What the site measures: readings with their age, and the snapshot of one tick."""
