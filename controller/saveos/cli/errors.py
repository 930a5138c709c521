"""Exit codes of the command and the one exception that carries them."""

OK, FAILED, USAGE, FINDINGS, UNREACHABLE, REFUSED = range(6)


class CommandError(Exception):
    """Ends the command: `str(error)` is the sentence for standard error, `code` the exit code."""

    def __init__(self, sentence: str, code: int = FAILED) -> None:
        super().__init__(sentence)
        self.code = code
