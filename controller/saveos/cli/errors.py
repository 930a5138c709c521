"""Exit codes of the command, the rule that makes them of answers, the exception that carries them."""

OK, FAILED, USAGE, FINDINGS, UNREACHABLE, REFUSED = range(6)
OF_STATUS = {401: REFUSED, 403: REFUSED, 404: USAGE, 409: REFUSED, 413: USAGE, 422: USAGE, 429: REFUSED}


def code_of(status: int) -> int:
    """Return the exit code for a problem that the controller answered.

    What is named and not there is wrong usage, whether it is named in the address (404) or the body (422).
    """
    return OF_STATUS.get(status, FAILED)


class CommandError(Exception):
    """Ends the command: `str(error)` is the sentence for standard error, `code` the exit code."""

    def __init__(self, sentence: str, code: int = FAILED) -> None:
        super().__init__(sentence)
        self.code = code
