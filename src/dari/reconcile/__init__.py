"""Makes the world agree with the store. The only room that holds both."""
