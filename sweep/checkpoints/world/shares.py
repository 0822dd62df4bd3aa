"""How sure a share of right answers is."""

import math

Z = 1.959963984540054  # of a 95 % interval


def wilson(right: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22:209): it holds for few, and where all are right."""
    share, bend = right / count, Z * Z / count
    middle = (share + bend / 2) / (1 + bend)
    half = Z * math.sqrt(share * (1 - share) / count + bend / count / 4) / (1 + bend)
    return (middle - half if right else 0.0), (middle + half if right < count else 1.0)
