"""A server that is already running and was not started here."""
