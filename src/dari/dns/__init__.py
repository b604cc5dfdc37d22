"""The DNS responder, a process of its own. Standard library only; imports nothing else of dari."""
