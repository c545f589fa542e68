"""The simulator: a local server that speaks the Messages API, so that the real SDK and the real code path run
without a key."""
