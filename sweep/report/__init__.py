"""What a finished sweep looks like to people: plots, a table in the terminal, a page in the browser."""
