"""The doctor's checks, each by values: what is right is not complained of, what is wrong is named and mended."""

import json
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from oesvc.operator.doctor.checks import CHECKS, answer, as_text, examine
from oesvc.operator.doctor.facts import Daemon, Facts, Interface, PortHolder, Severity
from tests.operator.doctor.parts import PID, first_line, healthy, written

GATEWAY = ip_address("192.1.1.4")


@pytest.fixture
def well(tmp_path):
    return healthy(tmp_path)


def test_gateway_in_good_health_has_no_findings(well):
    assert examine(well) == []
    assert as_text(answer(well)).startswith(f"all is well: {len(CHECKS)} checks, records of nobody, the daemon runs\n")


def test_answer_is_json_with_its_version(well):
    found = json.loads(json.dumps(answer(replace(well, daemon=Daemon.ABSENT))))
    assert found["schema"] == 1 and found["findings"][0]["severity"] == "problem"


@pytest.mark.parametrize("changes, cause, remedy", [
    ({"complaint": "/etc/oegw/oegw.conf:3: there is no option adress"}, "oegw.conf:3: there is no option adress",
     "mend that place"),
    ({"key_complaint": "/x: there is no such file"}, "private key cannot be used", "oegw keys gen"),
    ({"key_complaint": "/x: others may read it (mode 0644)"}, "others may read it", "chmod 600"),
    ({"state_complaint": "No space left on device"}, "No space left on device", "df -h"),
    ({"state_complaint": "Read-only file system"}, "Read-only file system", "install -d"),
    ({"kernel": {"IPsec (esp4)": "not supported"}}, "this kernel has no IPsec (esp4)", "linux-image-amd64"),
    ({"holders": (PortHolder(500, 812, "charon"), PortHolder(4500, PID, "twistd3"))},
     "another program holds UDP port 500: charon (process 812)", "systemctl disable --now strongswan-starter"),
    ({"holders": (PortHolder(500, PID, "twistd3"), PortHolder(4500, 9, "odd"))}, "UDP port 4500: odd", "ss -lunp"),
    ({"holders": (PortHolder(500, PID, "twistd3"),)}, "UDP port 4500 is not open", "restart"),
    ({"interfaces": (Interface("eth7", (ip_interface("192.1.1.4/24"),), 1500),)}, "no interface lan0", "inside ="),
    ({"interfaces": (Interface("lan0", (ip_interface("192.1.0.1/24"),), 1500),)},
     "192.1.1.4 is no address of this host", "address ="),
    ({"hosts": (ip_address("192.1.9.9"),)}, "192.1.9.9 is not among [gateway] clients", "192.1.9.9/32"),
    ({"anchors_complaint": "/x: not readable"}, "the trust anchors cannot be used", "dns-root-data"),
    ({"daemon": Daemon.ABSENT}, "no daemon runs", "systemctl restart oegw"),
    ({"daemon": Daemon.DEAD}, "is left of one that died", "journalctl -u oegw"),
    ({"daemon": Daemon.SILENT, "daemon_says": "timed out"}, "does not answer at", "systemctl restart oegw"),
    ({"sysctls": {"ipv4/ip_forward": "0"}}, "net.ipv4.ip_forward is 0", "sysctl -w net.ipv4.ip_forward=1"),
    ({"sysctls": {"ipv4/conf/wan0/disable_xfrm": "1"}},
     "net.ipv4.conf.wan0.disable_xfrm is 1: what leaves there is not", "disable_xfrm=0"),
    ({"dns_complaint": "no name server"}, "the DNS cannot be asked", "mend [dns]"),
])
def test_problem_is_named_in_the_first_line_and_mended_in_the_second(well, changes, cause, remedy):
    first, second, *_ = as_text(answer(replace(well, **changes))).splitlines()
    assert first.startswith("problem: ") and cause in first
    assert second.startswith("    mend it: ") and remedy in second


@pytest.mark.parametrize("changes, cause", [
    ({"synchronized": False}, "is not synchronized"), ({"as_root": False}, "not run as root"),
    ({"anchors_refreshed": 1_790_000_000.0}, "last seen 116 days ago"),
    ({"sysctls": {"ipv4/ip_forward": "1", "ipv4/ip_no_pmtu_disc": "1"}}, "ip_no_pmtu_disc is 1")])
def test_what_may_do_harm_is_a_warning(well, changes, cause):
    ((_, finding),) = examine(replace(well, **changes))
    assert finding.severity is Severity.WARNING and cause in finding.cause


def test_clients_of_which_only_a_part_is_said_are_named(tmp_path):
    well = healthy(tmp_path)
    wider = (*well.interfaces[:1], Interface("lan0", (ip_interface("192.1.0.1/23"),), 1500), *well.interfaces[2:])
    assert "192.1.0.0/24 is only a part of 192.1.0.0/23, which is attached to lan0" in first_line(
        well, interfaces=wider)
    more = (*well.interfaces[:1], Interface("lan0", (ip_interface("192.1.0.1/24"), ip_interface("192.9.0.1/24")), 1500),
            *well.interfaces[2:])
    ((_, finding),) = examine(replace(well, interfaces=more))
    assert finding.severity is Severity.WARNING and "192.9.0.0/24" in finding.cause


@pytest.mark.parametrize("mtu, severity", [
    (1500, []), (1353, []), (1352, [Severity.WARNING]), (1279, [Severity.PROBLEM])])
def test_mtu_must_leave_room_for_what_ipv6_promises(well, mtu, severity):
    narrow = (*well.interfaces[:2], replace(well.interfaces[2], mtu=mtu))
    assert [finding.severity for _, finding in examine(replace(well, interfaces=narrow))] == severity


def test_one_armed_gateway_must_not_send_its_clients_away(tmp_path):
    well = healthy(tmp_path)
    one_arm = (Interface("wan0", (ip_interface("192.1.1.4/24"), ip_interface("192.1.0.1/24")), 1500),
               Interface("lan0", (), 1500))
    assert "send_redirects is 1: clients on that link are told to go around" in first_line(well, interfaces=one_arm)


def test_private_client_is_named(tmp_path):
    file = written(tmp_path)
    file.write_text(file.read_text().replace("192.1.0.0/24", "192.168.7.0/24"))
    facts = replace(healthy(tmp_path))
    private = replace(facts, settings=replace(facts.settings, clients=(ip_interface("192.168.7.0/24").network,)),
                      interfaces=(Interface("lan0", (ip_interface("192.168.7.1/24"),), 1500), *facts.interfaces[2:]))
    assert "[gateway] clients: 192.168.7.0/24 is private" in first_line(private)


def sas_with(peer, sent, received):
    return [{"way": "out", "from": "192.1.1.4", "to": peer, "datagrams": sent},
            {"way": "in", "from": peer, "to": "192.1.1.4", "datagrams": received}]


@pytest.mark.parametrize("sas, severities", [
    ([], []), (sas_with("192.0.2.5", 9, 0), []), (sas_with("192.0.2.5", 900, 1), []),
    (sas_with("192.0.2.5", 10, 0), [Severity.WARNING]), (sas_with("192.0.2.5", None, None), []),
    (sas_with("192.0.2.5", 10, 0) + sas_with("192.0.2.6", 90, 80), [Severity.WARNING]),
    (sas_with("192.0.2.5", 10, 0) + sas_with("192.0.2.6", 90, 0), [Severity.PROBLEM])])
def test_esp_that_is_never_answered_is_told(well, sas, severities):
    found = [finding for _, finding in examine(replace(well, sas=sas))]
    assert [finding.severity for finding in found] == severities
    assert all("192.0.2.5" in finding.cause and "IP protocol 50" in finding.remedy for finding in found)


def test_user_who_may_not_ask_the_daemon_is_told_so_and_nothing_worse(well):
    ((_, finding),) = examine(replace(well, daemon=Daemon.HIDDEN, as_root=False, key=None))
    assert "not run as root" in finding.cause


def test_causes_come_before_what_they_lead_to(well):
    found = [name for name, _ in examine(replace(
        well, daemon=Daemon.ABSENT, synchronized=False, key_complaint="/x: no such file", dns_complaint="none"))]
    assert found == ["private key", "daemon", "resolvers", "time synchronization"]


def test_without_a_configuration_the_host_is_looked_at_all_the_same(tmp_path):
    facts = Facts(tmp_path / "oegw.conf", complaint="No such file", daemon=Daemon.ABSENT, kernel={"IPsec": "no"})
    assert [name for name, _ in examine(facts)] == ["configuration", "kernel", "daemon"]


def test_what_was_looked_at_is_told_with_the_dnssec_status_of_each_record_and_the_age_of_the_anchors(tmp_path):
    facts = healthy(tmp_path)
    look_ups = [{"type": "KEY", "status": "secure", "chain": (), "records": [{}]},
                {"type": "TXT", "status": "insecure", "chain": (), "records": []}]
    told = answer(replace(facts, dns={GATEWAY: {"lookups": look_ups}}, key=None))
    assert told["records"] == [{"subject": str(GATEWAY), "type": "KEY", "dnssec": "secure", "found": 1},
                               {"subject": str(GATEWAY), "type": "TXT", "dnssec": "insecure", "found": 0}]
    assert told["anchors_seen"] == facts.anchors_refreshed
    assert as_text(told).splitlines()[-2:] == [
        f"  {GATEWAY}: KEY secure, no TXT insecure",
        "  the trust anchors, last seen in the DNS on 2027-01-14 08:00:00 UTC"]
