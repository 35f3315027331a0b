"""Technology + port: the world as it is."""
