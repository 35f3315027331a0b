"""One small Protocol per file: what the decisions need from the world."""
