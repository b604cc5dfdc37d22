"""The nouns of the engine and the kinds of error. Knows no store, no JSON of the API, no clock."""
