"""What must never go in clear outlives a slip of the pen: kept when it is put in force, blocked at boot."""

import os
import stat
from dataclasses import replace
from ipaddress import ip_network

import pytest
from twisted.internet.defer import fail, succeed

from oesvc.config import load
from oesvc.interfaces import PlaneError
from oesvc.kept import FILE_NAME, closing_of, keep, read_kept, state_directory
from oesvc.kernel.exemptions import remaining_policies
from oesvc.kernel.ruleset import closed_ruleset
from tests.test_closed import SHOW, closed, configuration  # noqa: F401
from tests.test_gateway import Service, seen, write  # noqa: F401

RICH = """[gateway]
address = 192.0.2.1 2001:db8::1
clients = 198.51.100.0/24 2001:db8:1::/48
translated = 10.9.0.0/24 fd09::/64 10.8.0.0/24=192.0.2.8/32
inside = lan0 lan1.7
[policy]
default = private
[tunnel Zürich]
peer = 192.0.2.99
local = 198.51.100.0/24
remote = 203.0.113.0/24
identity = @sg.example
key = dns
"""


@pytest.fixture
def slip(configuration):  # noqa: F811
    """The policy is kept, and then the files have an error."""
    keep(load(configuration))
    with (configuration.parent / "policies/private").open("a") as file:
        file.write("203.0.113.0/33\n")
    return configuration


def blocks(done):
    return [rule for rule in ('ip daddr 203.0.113.0/24 counter name "deny_no_source" drop',
                              'ip6 daddr 2001:db8:9::/48 counter name "deny_no_source" drop',
                              "src 198.51.100.0/24 dst 203.0.113.0/24 \n\tdir out action block")
            if rule in done.stdout]


def boot(file):
    """The program's exit status and words, and what stands there then."""
    return closed(file, f"|| status=$?; {SHOW}; exit ${{status:-0}}")


def test_at_boot_an_error_in_a_policy_file_is_told_and_what_was_last_in_force_is_blocked(slip):
    done = boot(slip)
    assert len(blocks(done)) == 3
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"oegw: {slip.parent}/policies/private:3: ") and FILE_NAME in done.stderr
    assert "not blocked" not in done.stderr


@pytest.mark.parametrize("line", ["[gateway]", "no form at all", "[ike]\nprofil = modern"])
def test_at_boot_an_error_in_the_configuration_itself_is_no_other(configuration, line):  # noqa: F811
    keep(load(configuration))
    configuration.write_text(f"{configuration.read_text()}{line}\n")
    done = boot(configuration)
    assert len(blocks(done)) == 3
    assert done.returncode == 1 and done.stderr.startswith(f"oegw: {configuration}:")


def test_where_the_files_are_in_order_they_count_and_not_what_was_kept(configuration):  # noqa: F811
    keep(load(configuration))
    (configuration.parent / "policies/private").write_text("")
    done = boot(configuration)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def shorten(file):
    file.write_text(file.read_text()[:-20])


@pytest.mark.parametrize("spoil", [
    lambda file: file.unlink(), shorten, lambda file: file.write_text("[]"), lambda file: file.write_text("{}"),
    lambda file: file.write_bytes(b"\xff"), lambda file: file.chmod(0o644), lambda file: file.parent.chmod(0o777),
    lambda file: os.chown(file, 12345, -1), lambda file: file.rename(file.parent / "x") and file.symlink_to("x"),
], ids=["none", "short", "list", "empty", "octets", "mode", "directory", "owner", "link"])
def test_what_was_kept_is_not_trusted_where_another_may_have_written_it_or_it_is_broken(slip, spoil):
    file = slip.parent / FILE_NAME
    spoil(file)
    done = boot(slip)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and str(file) in done.stderr
    assert done.stderr.startswith("oegw: what must never go in clear is not blocked: "
                                  f"{slip.parent}/policies/private:3: ")


def test_what_is_kept_closes_what_the_configuration_does(write, tmp_path):  # noqa: F811
    config = load(write(RICH, clear="192.0.2.128/25\n192.0.2.0/25 tcp 0 22\n",
                        block="192.0.2.200/32\n2001:db8:7::/48 udp 5 6\n"))
    keep(config)
    wanted, found = closing_of(config), read_kept(tmp_path / FILE_NAME)
    assert wanted.plane.configured and wanted.plane.port_rules and wanted.plane.spared
    assert remaining_policies(found.plane) == remaining_policies(wanted.plane)
    assert closed_ruleset(found.plane) == closed_ruleset(wanted.plane)
    assert found.control_socket == wanted.control_socket


def test_it_is_written_beside_for_its_owner_alone(configuration):  # noqa: F811
    (configuration.parent / f"{FILE_NAME}.new").write_text("a machine that stopped")
    keep(load(configuration))
    keep(load(configuration))
    found = (configuration.parent / FILE_NAME).stat()
    assert stat.S_IMODE(found.st_mode) == 0o600 and found.st_uid == configuration.parent.stat().st_uid
    assert not (configuration.parent / f"{FILE_NAME}.new").exists()


@pytest.mark.parametrize("text, directory", [
    ("[paths]\nstate = /srv/oegw\n[paths]\nstray", "/srv/oegw"), ("[paths]\nstate = here\n", "/var/lib/oegw"),
    ("stray\n[paths]\nstate = /srv/oegw\n", "/var/lib/oegw"), (None, "/var/lib/oegw")])
def test_the_state_directory_is_read_as_far_as_it_can_be(tmp_path, text, directory):
    if text is not None:
        (tmp_path / "oegw.conf").write_text(text)
    assert str(state_directory(tmp_path / "oegw.conf")) == directory


class Running(Service):
    """With a forwarding plane that takes every policy but `refused`."""

    refused = None

    def __init__(self, config):
        super().__init__(config)
        self._plane.reconfigure = lambda plane: fail(PlaneError("no")) if self.refused else succeed(None)
        self._anchors.start = lambda *parts: None
        self.startService()

    def kept(self):
        return read_kept(self._config.state_directory / FILE_NAME).plane.never_clear


@pytest.fixture
def running(write, tmp_path):  # noqa: F811
    config = load(write("[gateway]\naddress = 127.0.0.1", private="203.0.113.0/24\n"))
    service = Running(replace(config, control_socket=tmp_path / "control"))
    yield service
    service.stopService()
    service._plane.stopped.callback(None)


def test_it_is_kept_when_the_daemon_has_put_it_in_force_and_with_each_reload_that_succeeds(running, tmp_path):
    assert not (tmp_path / FILE_NAME).exists()
    running._plane.started.callback(None)
    assert running.kept() == (ip_network("203.0.113.0/24"),)
    (tmp_path / "policies/private").write_text("203.0.113.0/25\n")
    running._policy.reload()
    assert running.kept() == (ip_network("203.0.113.0/25"),)
    (tmp_path / "policies/private").write_text("203.0.113.0/26\n")
    running.refused = True
    running._policy.hang_up()
    (tmp_path / "policies/private").write_text("203.0.113.0/33\n")
    running._policy.hang_up()
    assert running.kept() == (ip_network("203.0.113.0/25"),)


def test_where_it_cannot_be_kept_the_daemon_goes_on_and_says_so(running, tmp_path, seen):  # noqa: F811
    (tmp_path / FILE_NAME).mkdir()
    running._plane.started.callback(None)
    assert running.tried == ["the resolvers"]
    assert [event["log_format"] for event in seen if "next boot" in event.get("log_format", "")]
