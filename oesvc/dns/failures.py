"""Why an answer cannot be believed: RFC 4035 section 4.3. The text of each is one sentence for people."""

# Our choice: seconds for which what failed is not tried again.
BOGUS_TTL = 60
INDETERMINATE_TTL = 5


class Bogus(Exception):  # noqa: N818 - the RFC's words, here and below
    """A signature or a proof that must be there is missing or false."""


class Indeterminate(Exception):  # noqa: N818
    """Nothing can be said: silence, a server that fails, no trust anchor, a budget that is used up."""


class ServerFailure(Exception):  # noqa: N818
    """A server from which no answer is to be had now. The text completes a sentence that begins with its address."""


class Unreachable(ServerFailure):
    """There is no way to it, or nobody at the end."""


class Silence(ServerFailure):
    """It did not answer in time: it may yet."""


class MalformedData(ValueError):  # noqa: N818
    """Octets from the network that are not what they claim to be."""
