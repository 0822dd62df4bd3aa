"""How people see a finished sweep: plots, a table in the terminal, a page in the browser."""
