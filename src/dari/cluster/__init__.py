"""Nodes, services and tasks: a customer of the engine."""
