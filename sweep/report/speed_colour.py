"""The colour of a speed-up: blue is faster, orange slower, and pale grey is 1, for plots and the page alike.

Safe for the colour-blind. The scale is logarithmic and symmetric, 2× as far from the middle as 0.5×; dark text can be
read on every colour. Knows nothing of what is coloured.
"""

import math
from collections.abc import Iterable

SLOWEST, MIDDLE, FASTEST = (0xF4, 0xA5, 0x6B), (0xF5, 0xF5, 0xF5), (0x85, 0xB8, 0xE2)
LEAST = 1.25
"""The scale reaches from 1 / LEAST to LEAST at least: small differences stay pale."""


def reach(ratios: Iterable[float]) -> float:
    """The largest speed-up on the scale of these; the smallest is 1 ÷ it."""
    logs = [abs(math.log(ratio)) for ratio in ratios if 0 < ratio < math.inf]
    return math.exp(max([math.log(LEAST), *logs]))


def colour(ratio: float, largest: float) -> str:
    """`#rrggbb` of a speed-up on a scale that ends at `largest` (> 1); beyond its ends it is that of the end."""
    place = math.log(ratio) / math.log(largest) if 0 < ratio < math.inf else math.copysign(1.0, ratio - 1)
    end = FASTEST if place > 0 else SLOWEST
    share = min(1.0, abs(place))
    return "#" + "".join(
        f"{round(middle + share * (value - middle)):02x}" for middle, value in zip(MIDDLE, end, strict=True)
    )
