"""Which stage of an AR → DiT model broke a picture: its AR stage, the hand-over, or what draws it. Pure functions.

Image tokens that do not match the prompt are the AR stage's fault. Where the tokens are right, the DiT stage or the VAE
broke the picture, unless the DiT stage received different tokens.
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

from sweep.analysis.evidence import OTHER_TOKENS
from sweep.findings import FAIL, Finding

AR, HAND_OVER, DIT = "ar_breaks_facts", "hand_over_breaks_facts", "dit_breaks_facts"
"""Codes of the finding that pictures no longer match their prompts, where the stage that broke them is known."""

AR_TOKENS = "ar_tokens_wrong"
"""Code: the AR stage's tokens do not match the prompts, regardless of the baseline's tokens."""

DRAWN_WRONG = "dit_pictures_wrong"
"""Code of the note that pictures do not match their prompts although the AR stage's tokens do."""

GRAVE = 0.25
"""Share of a cell's pictures from which wrong ones are more than a trained model's few mistakes."""

FEWEST = 2
"""A single wrong picture is never grave, however few pictures there are: it may be a matter of opinion."""

SHOWN = 2  # broken facts that a finding names

Tokens = Mapping[Any, Sequence[str]]
"""Picture → where its image tokens differ from the prompt, one sentence each; only where its tokens are known."""


def cause(broken: Collection[Hashable], tokens: Tokens, handed_over: bool) -> tuple[str, str]:
    """Code and words for the stage that broke these pictures; "" and "" where it is not known.

    `handed_over` is whether the DiT stage received the tokens that the AR stage wrote.
    """
    if not broken or not tokens.keys() >= set(broken):
        return "", ""
    already = sum(bool(tokens[key]) for key in broken)
    if already == len(broken):
        return AR, "the AR stage's tokens already say so"
    if not handed_over:
        return HAND_OVER, OTHER_TOKENS
    if already:
        return "", f"in {already} of {len(broken)} the AR stage's tokens already say so"
    return DIT, "the AR stage's tokens are right, so the DiT stage or the VAE broke them"


def judge(tokens: Tokens) -> list[Finding]:
    """FAIL where the AR stage's tokens are wrong for many pictures, no status for few; [] for none."""
    wrong = [said for said in tokens.values() if said]
    if not wrong:
        return []
    which = f"in {len(wrong)} of {len(tokens)} pictures" if len(tokens) > 1 else "in the picture"
    named = "; ".join(said[0] for said in wrong[:SHOWN]) + (", …" if len(wrong) > SHOWN else "")
    status = FAIL if grave(len(wrong), len(tokens)) else ""
    return [Finding(AR_TOKENS, f"the AR stage's tokens do not say what was asked {which} ({named})", status)]


def drawn_wrong(inexact: Collection[Hashable], tokens: Tokens, handed_over: bool) -> list[Finding]:
    """A note where many pictures do not show what their tokens say."""
    drawn = [key for key in inexact if key in tokens and not tokens[key]]
    if not handed_over or not grave(len(drawn), len(tokens)):
        return []
    which = f"{len(drawn)} of {len(tokens)} pictures do not show what was asked although the AR stage's tokens say it"
    return [Finding(DRAWN_WRONG, f"{which}, so the DiT stage or the VAE broke them")]


def grave(count: int, whole: int) -> bool:
    """Whether `count` wrong pictures of `whole` are more than a trained model's few mistakes."""
    return count >= FEWEST and count > GRAVE * whole
