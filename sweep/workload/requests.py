"""Requests of a workload: which prompt with which seed, grouped into full batches.

The list depends only on the workload, the batch and the first seed, so that a cell and its baseline run
exactly the same requests and can be paired. Knows nothing of engines.
"""

from collections.abc import Sequence

from sweep.config.workload import Workload
from sweep.engines.protocol import Request
from sweep.refusals import require
from sweep.workload import edit_requests
from sweep.workload.inputs import Inputs, read_inputs


def build_requests(workload: Workload, batch: int, seed: int, inputs: Inputs | None = None) -> list[Request]:
    """The requests of one round: num_prompts x seeds_per_prompt, then as many more as fill the last batch.

    `inputs` is what the plan kept of the files that `workload` names; without it they are read now.

    A prompt's first request has seed `seed`, its next `seed + 1`, and so on: fewer prompts than
    `num_prompts` cycle with further seeds, and so do the extra requests, so no (prompt, seed) occurs twice.
    A larger batch only appends; the leading requests are the same. Raises ConfigError.
    """
    require(batch >= 1, f"batch={batch}: must be at least 1")
    inputs = inputs or read_inputs(workload)
    if inputs.edits:
        return edit_requests.build(workload, batch, seed, inputs)
    prompts = inputs.prompts
    number = workload.number_of(len(prompts))
    asked = [slot % len(prompts) for slot in range(number) for _ in range(workload.seeds_per_prompt)]
    extra = [index % len(prompts) for index in range(-len(asked) % batch)]
    used = [0] * len(prompts)  # seeds taken so far by each prompt
    requests: list[Request] = []
    for number, prompt_index in enumerate(asked + extra):
        requests.append(
            Request(
                request_id=f"r{number:03d}",
                prompt=prompts[prompt_index],
                prompt_index=prompt_index,
                seed=seed + used[prompt_index],
                height=workload.height,
                width=workload.width,
                steps=workload.steps,
                guidance_scale=workload.guidance_scale,
                negative_prompt=workload.negative_prompt,
                prompt_tokens=workload.prompt_tokens,
                input_image=inputs.image or None,
                input_size=workload.input_size,
            )
        )
        used[prompt_index] += 1
    return requests


def number_of_requests(workload: Workload, batch: int, inputs: Inputs | None) -> int:
    """How many `build_requests` makes: full batches."""
    if inputs and inputs.edits:
        return edit_requests.number(workload, batch, inputs.edits)
    asked = workload.number_of(inputs.number if inputs else 0) * workload.seeds_per_prompt
    return asked + -asked % batch


def batches(requests: Sequence[Request], batch: int) -> list[list[Request]]:
    """`requests` in order, `batch` at a time."""
    require(batch >= 1, f"batch={batch}: must be at least 1")
    return [list(requests[start : start + batch]) for start in range(0, len(requests), batch)]
