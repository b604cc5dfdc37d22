"""The Docker Engine API: translation only."""
