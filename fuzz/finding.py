"""What a target says when something is wrong."""

LONGEST_LINE = 8192


class FindingError(AssertionError):
    """A statement about our code that has turned out to be false; the text says which."""


def hold(statement: object, what: str) -> None:
    """Raise FindingError unless the statement holds."""
    if not statement:
        raise FindingError(what)


def fit_for_a_log(text: str) -> None:
    """A line of text that no sender can break, and of a length that no sender chooses."""
    hold(text and text.isprintable() and len(text) <= LONGEST_LINE, f"text that is not fit for a log: {text[:200]!r}")
