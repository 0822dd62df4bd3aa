"""Bad input to `python -m profiling`: one line that says what is wrong and what to do."""


class Refusal(Exception):
    """Its one line is printed on stderr, and the exit code is 2."""
