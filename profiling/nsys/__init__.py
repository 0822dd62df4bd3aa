"""Nsight Systems: its command line, reading its exports, and what they say."""
