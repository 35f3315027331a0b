"""HTTP: it serves what the controller knows, it never decides."""
