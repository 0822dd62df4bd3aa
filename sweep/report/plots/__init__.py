"""The pictures of a sweep, drawn from the rows of summary.csv."""
