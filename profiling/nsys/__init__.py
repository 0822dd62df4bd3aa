"""Nsight Systems: runs its command line, reads its exports and analyses them."""
