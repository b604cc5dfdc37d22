"""One function per operation of the engine. Knows no JSON and no kernel."""
