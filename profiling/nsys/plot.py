"""One picture of an analysis: the parts of each phase's time on the GPU. Decides appearance, computes nothing."""

from collections.abc import Sequence
from pathlib import Path

from profiling import plot_style
from profiling.errors import Refusal
from profiling.nsys.phase_analysis import Analysis, Phase
from profiling.nsys.verdict import duration, judge

PARTS = (
    ("compute_ns", "kernels", "#0173B2"),
    ("communication_exposed_ns", "communication, not hidden", "#CC78BC"),
    ("copy_exposed_ns", "copies, not hidden", "#029E73"),
    ("idle_for_host_ns", "idle, waiting for the host", "#DE8F05"),
    ("idle_otherwise_ns", "idle, waiting for something else", "#C8C8C8"),
)
"""Field of Phase, label, colour (colour-blind safe)."""

SHOWN = 10
FORMATS = (".png", ".svg", ".pdf")


def draw(analyses: Sequence[Analysis], path: Path) -> None:
    """Write the picture. Raises Refusal when there is nothing to draw or the file type is unknown."""
    if path.suffix not in FORMATS:
        raise Refusal(f"--plot {path}: the file name must end in .png, .svg or .pdf", "unknown_kind")
    phases = [phase for one in analyses for phase in one.main() if phase.projected_ns][:SHOWN]
    if not phases:
        raise Refusal(f"--plot {path}: there is nothing to draw, because no phase used a GPU", "no_gpu_phase")
    path.parent.mkdir(parents=True, exist_ok=True)
    with plot_style.style():
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(9, 1.3 + 0.42 * len(phases)), layout="constrained")
        places = list(range(len(phases)))
        begin = [0.0] * len(phases)
        for field, label, colour in PARTS:
            shares = [100 * getattr(phase, field) / phase.projected_ns for phase in phases]
            axes.barh(places, shares, left=begin, color=colour, label=label, height=0.7, linewidth=0)
            begin = [at + share for at, share in zip(begin, shares, strict=True)]
        for place, phase in zip(places, phases, strict=True):
            axes.text(101, place, f"{duration(phase.projected_ns)}, {judge(phase).bound}", va="center", fontsize=9)
        axes.set_yticks(places, [_label(phase, phases) for phase in phases])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("share of the phase's time on the GPU, %")
        axes.grid(axis="y", visible=False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False, fontsize=9)
        figure.savefig(path, dpi=150)
        pyplot.close(figure)


def _label(phase: Phase, phases: Sequence[Phase]) -> str:
    """The name, with its process where several phases have that name."""
    several = sum(other.name == phase.name for other in phases) > 1
    return f"{phase.name}, {phase.process}" if several else phase.name
