"""The command `oegw dns`."""

import sys
from argparse import Namespace

from oesvc.operator import dns_text
from oesvc.operator.apart import look_up_alone
from oesvc.operator.client import ANSWER_OF_DNS_WITHIN, DONE, REFUSED, CommandError, NoDaemonError, ask, control
from oesvc.operator.inquiry import Inquiry
from oesvc.operator.live import show


def carry_out(options: Namespace) -> int:
    try:
        Inquiry.parse(options.subject, options.types, options.fresh)
    except ValueError as error:
        raise CommandError(f"{options.subject!r} is neither an address nor a name: {error}") from None
    question = {"command": "dns", "subject": options.subject, "types": options.types, "fresh": options.fresh}
    try:
        if options.alone:
            raise NoDaemonError
        answer = ask(control(options), question, ANSWER_OF_DNS_WITHIN)
    except NoDaemonError:
        (answer,) = look_up_alone(options.config, [question])
        if not (options.alone or options.json):
            print("(no daemon answers: this is what one would see)", file=sys.stderr)
    show(options, answer, dns_text.dns)
    doubtful = any(look_up["status"] in ("bogus", "indeterminate") for look_up in answer["lookups"])
    return REFUSED if doubtful else DONE
