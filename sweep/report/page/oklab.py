"""Colours by lightness, and how well one reads on another.

OKLab: Björn Ottosson, "A perceptual color space for image processing", 2020. Contrast: WCAG 2.1, 1.4.3.
"""

Triple = tuple[float, float, float]
Matrix = tuple[Triple, Triple, Triple]

_TO_CONES: Matrix = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_LAB: Matrix = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
_FROM_LAB: Matrix = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)
_FROM_CONES: Matrix = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)


def to_oklab(colour: str) -> Triple:
    """Lightness in [0, 1], green to red and blue to yellow, of `#rrggbb`."""
    cones = _times(_TO_CONES, _linear(colour))
    return _times(_TO_LAB, (cones[0] ** (1 / 3), cones[1] ** (1 / 3), cones[2] ** (1 / 3)))


def from_oklab(lab: Triple) -> str:
    """`#rrggbb` of this lightness and hue; as colourful as a screen can show."""
    lightness, a, b = lab
    for step in range(20, -1, -1):
        rgb = _rgb((lightness, a * step / 20, b * step / 20))
        if all(-1e-3 <= value <= 1 + 1e-3 for value in rgb):
            break
    return "#" + "".join(f"{round(255 * _gamma(min(1.0, max(0.0, value)))):02x}" for value in rgb)


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours `#rrggbb`, in [1, 21]."""
    darker, lighter = sorted(0.05 + _luminance(colour) for colour in (first, second))
    return lighter / darker


def _luminance(colour: str) -> float:
    red, green, blue = _linear(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _rgb(lab: Triple) -> Triple:
    cones = _times(_FROM_LAB, lab)
    return _times(_FROM_CONES, (cones[0] ** 3, cones[1] ** 3, cones[2] ** 3))


def _linear(colour: str) -> Triple:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return _degamma(red), _degamma(green), _degamma(blue)


def _degamma(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def _gamma(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055


def _times(matrix: Matrix, vector: Triple) -> Triple:
    first, second, third = (sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)
    return first, second, third
