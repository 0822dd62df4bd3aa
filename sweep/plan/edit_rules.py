"""Whether a model and a load support the edits in a folder: several pictures, masks, turns. Pure."""

from collections.abc import Sequence

from sweep.config.run import RunConfig
from sweep.engines import registry
from sweep.findings import SKIP, Finding
from sweep.plan.rules import OFFLINE
from sweep.refusals import require
from sweep.workload.edit_files import EditTurn
from sweep.workload.inputs import Inputs


def check_edits(run: RunConfig, inputs: Inputs) -> Finding | None:
    """Why no machine runs these edits; None where one may. Raises ConfigError for what no model or no load supports."""
    for edit in inputs.edits:
        if run.load.name != OFFLINE:
            require(
                edit.turns == 1 and edit.count == 1 and edit.mask is None,
                f"{_line(run, edit)} has {_more_than_one(edit)}: load={run.load.name} sends edits of one turn and one "
                "picture, without a mask; measure these with load=offline",
            )
        fitting = run.workload.input_size in (None, (run.workload.width, run.workload.height))
        require(
            edit.mask is None or fitting,
            f"workload.input_width, workload.input_height: {_line(run, edit)} has a mask, which goes with pictures as "
            "large as the result; drop them",
        )
    kind = registry.kind(run.engine.name)
    if not inputs.edits or not kind.generates:
        return None
    takes, model = kind.edit_inputs(run), f"{run.model.name} with engine {run.engine.name}"
    if takes.most is not None and (several := _first([one for one in inputs.edits if one.count > takes.most])):
        most = "one picture" if takes.most == 1 else f"at most {takes.most} pictures"
        why = f"{model} takes {most}, {_line(run, several)} has {several.count}"
        return Finding("too_many_pictures", why, SKIP, short=most)
    if not takes.mask and (masked := _first([one for one in inputs.edits if one.mask is not None])):
        return Finding("takes_no_mask", f"{model} takes no mask, {_line(run, masked)} has one", SKIP, short="no mask")
    return None


def _first(edits: Sequence[EditTurn]) -> EditTurn | None:
    return edits[0] if edits else None


def _more_than_one(edit: EditTurn) -> str:
    if edit.turns > 1:
        return f"{edit.turns} turns"
    return f"{edit.count} pictures" if edit.count > 1 else "a mask"


def _line(run: RunConfig, edit: EditTurn) -> str:
    work = run.workload
    source = f"workload.edits={work.edits}" if work.edits is not None else f"workload.prompt_set={work.prompt_set}"
    turn = f", turn {edit.turn}" if edit.turns > 1 else ""
    return f"{source}, line {edit.line}{turn}"
