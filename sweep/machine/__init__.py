"""The devices of this machine: which exist, who uses them, and who may use them now."""
