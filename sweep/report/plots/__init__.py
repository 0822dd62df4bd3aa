"""The plots of a sweep, drawn from the rows of summary.csv."""
