"""What counts as a secret, how it is masked, and that it can be put back."""

import json

import pytest

from sweep.masking import MASK, is_secret, masked, masked_text, restored, secrets_of


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        *(
            (name, True)
            for name in ("engine.args.hf_token", "token", "dbPassword", "x.api_key", "AWS_SECRET", "s3-secret")
        ),
        *(
            (name, False)
            for name in ("prompt_tokens", "tokenizer", "token_ratio", "pad_token", "max_tokens", "key", "")
        ),
    ],
)
def test_names_of_secrets(name: str, secret: bool) -> None:
    assert is_secret(name) is secret


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("+engine.args.hf_token=a,b", f"+engine.args.hf_token={MASK}"),
        ("engine.args={hf_token:abc,x:1}", f"engine.args={{hf_token:{MASK},x:1}}"),
        ("engine.args={'hf_token': 'a b'}: no", f"engine.args={{'hf_token': {MASK}}}: no"),
        ("clip=s3://me:pw@bucket/clip", f"clip=s3://{MASK}@bucket/clip"),
        ("clip=s3://token@bucket/clip", f"clip=s3://{MASK}@bucket/clip"),
        ("workload.prompt=password: a cat", "workload.prompt=password: a cat"),
        ("workload.prompt_tokens=5", "workload.prompt_tokens=5"),
        ("mail me@host", "mail me@host"),
    ],
)
def test_masked_texts(text: str, shown: str) -> None:
    assert masked_text(text) == shown


def test_what_is_masked_can_be_put_back() -> None:
    config = {"a": {"token": "t", "list": [{"password": 7}, "https://u:p@h"]}, "steps": 3, "empty_secret": ""}
    shown = masked(config)
    assert shown == {
        "a": {"token": MASK, "list": [{"password": MASK}, f"https://{MASK}@h"]},
        "steps": 3,
        "empty_secret": "",
    }
    stored = json.loads(json.dumps(secrets_of(config, shown)))
    assert len(stored) == 3
    assert restored(shown, stored) == config
    assert secrets_of({"steps": 3}, masked({"steps": 3})) == []
