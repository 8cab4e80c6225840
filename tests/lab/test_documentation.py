"""Every `oegw` command that the documentation tells people to type is typed, on a gateway in service."""

import shlex

import pytest

from tests.lab.gateway import PYTHON
from tests.lab.network import address_of
from tests.test_documentation import TO_TYPE, found

THEIRS = {"192.0.2.1": address_of("sg-a"), "198.51.100.7": address_of("alice"), "198.51.100.8": address_of("alice"),
          "203.0.113.9": address_of("bob")}
"The documentation's addresses, and who they are in the lab."
NOT_CARRIED_OUT = {("records", "publish"): "refused the update"}
"The lab's name server takes no updates: what is said then."


@pytest.mark.lab
def test_every_command_to_type_is_carried_out(lab):
    lab.net["alice"].ping(address_of("bob"))
    configuration = str(lab.a.folder / "oegw.conf")
    for line in sorted({line for _, line in found(TO_TYPE)}):
        words = [THEIRS.get(word, word) for word in shlex.split(line)]
        done = lab.a.host.run([PYTHON, "-m", "oesvc.operator.main", *words, "--config", configuration],
                              check=False, timeout=240)
        refused = NOT_CARRIED_OUT.get(tuple(words[:2]))
        assert done.returncode in ((2,) if refused else (0, 1)), (line, done.stdout, done.stderr)
        assert (refused or "") in done.stderr, (line, done.stderr)
        assert refused or done.stdout.strip(), line
