"""What this machine can profile, and what is missing."""
