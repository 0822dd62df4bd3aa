"""Requests for texts: random prompts of a given length, or those of a file, each with how much to write.

The list depends only on the workload, their number and the first seed; a longer one begins with a shorter one.
"""

import random

from sweep.config.workload import Workload
from sweep.engines.protocol import Request, Text
from sweep.workload.inputs import Inputs

OUTPUT_LEN = 128  # tokens to write where nothing else is said

TOKEN_IDS = range(1030, 1286)
"""Tokens of random prompts: not special in any vocabulary that we know, and bytes in the embedded models' own
vocabulary."""

WORDS = (
    *("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state"),
    *("family", "student", "group", "country", "problem", "hand", "part", "place", "case", "week", "company", "system"),
    *("program", "question", "work", "government", "number", "night", "point", "home", "water", "room", "mother"),
    *("area", "money", "story", "fact", "month", "lot", "right", "study", "book", "eye", "job", "word", "business"),
    *("issue", "side", "kind", "head", "house", "service", "friend", "father", "power", "hour", "game", "line", "end"),
    *("member", "law", "car", "city", "name", "team", "minute", "idea", "body", "back", "parent", "face", "level"),
)
"""Words that are common enough to be one token each in the vocabularies of large models. What a server counts is in the
results."""


def text_requests(workload: Workload, count: int, seed: int, inputs: Inputs, as_tokens: bool) -> list[Request]:
    """`count` requests. Random prompts are tokens of the model with `as_tokens`, else words; no two are the same.

    Prompts of a file repeat, with further seeds.
    """
    rng = random.Random(f"texts {seed}")
    written = workload.output_len or OUTPUT_LEN
    found = []
    for number in range(count):
        place, again = (number % len(inputs.prompts), number // len(inputs.prompts)) if inputs.prompts else (number, 0)
        ids: tuple[int, ...] = ()
        if inputs.prompts:
            prompt = inputs.prompts[place]
            if workload.output_len is None and inputs.output_lens:
                written = inputs.output_lens[place]
        elif as_tokens:
            prompt, ids = "", tuple(rng.choices(TOKEN_IDS, k=workload.input_len or 1))
        else:
            prompt = " ".join(rng.choices(WORDS, k=workload.input_len or 1))
        found.append(
            Request(
                request_id=f"r{number:03d}",
                prompt=prompt,
                prompt_index=place,
                seed=seed + again,
                height=0,
                width=0,
                steps=0,
                guidance_scale=0.0,
                text=Text(max_tokens=written, prompt_ids=ids, temperature=workload.temperature),
            )
        )
    return found
