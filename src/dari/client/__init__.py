"""A blocking client of the Docker Engine API, for any engine."""
