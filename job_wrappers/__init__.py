"""Commands that run inside the user's job."""
