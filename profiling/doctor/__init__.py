"""Checks what this machine can profile and what is missing."""
