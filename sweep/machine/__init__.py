"""The devices of this machine: which there are, who has them, and who may use them now."""
