"""Every file of a sweep's folder: what is stored, and the only reader and writer of it."""
