"""A measured cell over time: `lanes` decides what is shown, `trace` and `plot` show it, `command` writes both."""
