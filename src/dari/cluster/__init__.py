"""Nodes that share a store: a customer of the engine, which does not know it."""
