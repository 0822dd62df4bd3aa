"""What follows from stored results: metrics, comparisons, statuses. Measures nothing."""
