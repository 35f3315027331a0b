"""Profiles that come with the product: composed from public figures, each file says of which."""
