"""Bad input to `python -m profiling`: one line that says what is wrong and what to do."""


class Refusal(Exception):
    """The command prints this line on stderr and exits with 2. `code` names the case, independent of the wording."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code
