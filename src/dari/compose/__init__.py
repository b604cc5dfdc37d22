"""Compose, a plain customer of the Docker Engine API."""
