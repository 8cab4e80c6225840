"""Records in zones of real servers: a BIND primary that signs and takes updates, an nsd that follows it."""

import json
import signal
import subprocess
import sys

import pytest

from oesvc.keys import key_pair
from tests.dns.conftest import free_address, start, wait_until_answering

HOST, ALIASED = "192.0.2.7", "198.51.100.66"
ZONES = ("2.0.192.in-addr.arpa", "100.51.198.in-addr.arpa", "64-79.100.51.198.in-addr.arpa")
UNSERVED = "203.0.113.1"


def named_conf(directory, address, tsig):
    zones = "\n".join(
        f'zone "{zone}" {{ type primary; file "{directory}/{zone}.zone"; allow-update {{ key oegw; }};'
        f' dnssec-policy default; inline-signing yes; key-directory "{directory}"; notify explicit; }};'
        for zone in ZONES)
    root = f'zone "." {{ type primary; file "{directory}/root.zone"; }};'
    return (f'{tsig}\noptions {{ directory "{directory}"; pid-file none; listen-on port 53 {{ {address}; }}; '
            f'listen-on-v6 {{ none; }}; recursion no; allow-transfer {{ any; }}; also-notify {{ }}; '
            f'session-keyfile "{directory}/session.key"; }};\ncontrols {{ }};\n{root}\n{zones}\n')


def nsd_conf(directory, address, primary):
    zones = "\n".join(f'zone:\n  name: "{zone}"\n  request-xfr: AXFR {primary} NOKEY\n  allow-notify: {primary} NOKEY\n'
                      f'  max-refresh-time: 1\n  outgoing-interface: {address}' for zone in ZONES)
    return (f'server:\n  ip-address: {address}@53\n  username: ""\n  chroot: ""\n  zonesdir: "{directory}"\n'
            f'  database: ""\n  pidfile: "{directory}/nsd.pid"\n  xfrdfile: "{directory}/nsd.xfrd"\n'
            f'  zonelistfile: "{directory}/nsd.zones"\n  xfrdir: "{directory}"\n  server-count: 1\n  rrl-ratelimit: 0\n'
            f'remote-control:\n  control-enable: no\n{zones}\n')


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Zones with a MINIMUM of two seconds at two servers; the reverse map of one host is an alias (RFC 2317)."""
    directory = tmp_path_factory.mktemp("servers")
    (primary, _), (secondary, _) = free_address(), free_address()
    tsig = subprocess.run(["tsig-keygen", "oegw"], capture_output=True, text=True, check=True, timeout=20).stdout
    (directory / "tsig.key").write_text(tsig)
    (directory / "tsig.key").chmod(0o600)
    (directory / "root.zone").write_text(
        f"$TTL 60\n. SOA ns1.test. host. 1 2 3 4 2\n. NS ns1.test.\nns1.test. A {primary}\nns2.test. A {secondary}\n")
    for zone in ZONES:
        (directory / f"{zone}.zone").write_text(
            "$TTL 2\n@ SOA ns1.test. host.test. 1 1 1 3600 2\n@ NS ns1.test.\n@ NS ns2.test.\n"
            + ("66 CNAME 66.64-79.100.51.198.in-addr.arpa.\n" if zone == ZONES[1] else ""))
    servers = []
    try:
        # BIND serves only addresses that an interface has.
        subprocess.run(["ip", "address", "add", f"{primary}/32", "dev", "lo"], check=True, timeout=20)
        servers.append(start(directory, "named", named_conf(directory, primary, tsig)))
        wait_until_answering(servers[0], (primary, 53))
        servers.append(start(directory, "nsd", nsd_conf(directory, secondary, primary)))
        yield directory, primary, secondary
    finally:
        for server in servers:
            server.terminate()
            server.wait(20)
        subprocess.run(["ip", "address", "delete", f"{primary}/32", "dev", "lo"], check=False, timeout=20)


@pytest.fixture
def gateway(place, tmp_path):
    """A gateway with a key of its own: its configuration."""
    directory, primary, _ = place
    (tmp_path / "policies").mkdir()
    key_pair.generate(tmp_path / "private" / "gateway.pem")
    return configure(tmp_path, primary, directory / "tsig.key")


def configure(folder, primary, tsig, gateway="192.0.2.1"):
    file = folder / "oegw.conf"
    file.write_text(f"[gateway]\naddress = {gateway}\n[ike]\nprivate-key = {folder}/private/gateway.pem\n"
                    f"[dns]\nservers = {primary}\n[publish]\nhosts = {HOST} {ALIASED}\nttl = 1\n"
                    + (f"tsig-key = {tsig}\n" if tsig else "") +
                    f"[paths]\npolicies = {folder}/policies\ncontrol-socket = {folder}/control\nstate = {folder}\n")
    return file


def command(file, *words):
    return [sys.executable, "-m", "oesvc.operator.main", *words, "--config", str(file)]


def oegw(file, *words):
    return subprocess.run(command(file, *words), capture_output=True, text=True, check=False, timeout=150)


def at(server, name, rdtype):
    asked = ["dig", f"@{server}", "+short", "+norecurse", "+tcp", name, rdtype]
    return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.replace(" ", "")


def published(place, key):
    """Whether each server has all records of a key, or none: with the alias's at its target."""
    needle = key.to_base64()[-40:]
    answers = [needle in at(server, name, rdtype).replace('"', "")
               for server in place[1:]
               for name, rdtype in (("1.2.0.192.in-addr.arpa", "TYPE25"), ("1.2.0.192.in-addr.arpa", "TXT"),
                                    ("7.2.0.192.in-addr.arpa", "TXT"), ("7.2.0.192.in-addr.arpa", "IPSECKEY"),
                                    ("66.64-79.100.51.198.in-addr.arpa", "TXT"))]
    return set(answers)


def public(file):
    return key_pair.public_key(key_pair.load(file))


def test_records_are_published_checked_and_withdrawn(place, gateway):
    before = oegw(gateway, "records", "check")
    assert before.returncode == 1
    assert "missing at ns2.test." in before.stdout and "`oegw records publish` puts them there" in before.stdout
    done = oegw(gateway, "records", "publish")
    assert (done.returncode, done.stderr) == (0, "")
    assert "7 records handed to" in done.stdout and "7 of 7 records are at every server" in done.stdout
    assert published(place, public(gateway.parent / "private/gateway.pem")) == {True}
    checked = json.loads(oegw(gateway, "records", "check", "--json").stdout)
    assert {one["there"] for one in checked["records"]} == {True}
    assert {one["server"] for one in checked["records"]} == {"ns1.test.", "ns2.test."}


def test_records_are_shown_where_the_aliases_of_rfc_2317_lead(place, gateway):
    plain, followed = (json.loads(oegw(gateway, "records", "show", "--json", *more).stdout)
                       for more in ((), ("--follow",)))
    assert followed["schema"] == 1 and followed["ttl"] == 1
    assert [one["rdata"] for one in followed["records"]] == [one["rdata"] for one in plain["records"]]
    reverse, target = "66.100.51.198.in-addr.arpa.", "66.64-79.100.51.198.in-addr.arpa."
    assert [one["owner"].replace(reverse, target) for one in plain["records"]] == [
        one["owner"] for one in followed["records"]]
    assert f"{target} IN TXT " in oegw(gateway, "records", "show", "--follow").stdout
    assert f"update add {target} 1 IN TXT " in oegw(gateway, "records", "show", "--follow", "--nsupdate").stdout


@pytest.mark.conformance("C-5.4-01", "C-5.4-04")
def test_key_is_rolled_over_at_all_servers_and_nothing_is_left_of_the_old_one(place, gateway):
    assert oegw(gateway, "records", "publish").returncode == 0
    old = public(gateway.parent / "private/gateway.pem")
    first = oegw(gateway, "keys", "roll")
    assert first.returncode == 0, first.stderr
    assert "caches may still hold" in first.stdout
    new = public(gateway.parent / "private/gateway.next.pem")
    assert published(place, old) == published(place, new) == {True}, "both, from the time it is made"
    listed = oegw(gateway, "keys", "list").stdout
    assert f"in use  {old}" in listed and f"next    {new}" in listed
    done = oegw(gateway, "keys", "roll", "--wait", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["roll_over"] is None
    assert "no daemon runs; it will use the key when it starts" in done.stderr
    assert public(gateway.parent / "private/gateway.pem") == new
    assert (published(place, new), published(place, old)) == ({True}, {False})
    again = oegw(gateway, "keys", "roll", "--older-than", "30")
    assert "nothing to do" in again.stdout


def test_roll_over_survives_being_killed_at_any_time(place, gateway):
    assert oegw(gateway, "records", "publish").returncode == 0
    folder = gateway.parent / "private"
    old = public(folder / "gateway.pem")
    rolled = False
    for quarter in range(40):
        running = subprocess.Popen(command(gateway, "keys", "roll", "--wait"), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            running.wait(0.6 + quarter / 4)  # ever later, so that it gets somewhere on a busy machine too
        except subprocess.TimeoutExpired:
            subprocess.run(["pkill", "--signal", str(int(signal.SIGKILL)), "--session", str(running.pid)], check=False)
            running.wait(10)
        in_use = public(folder / "gateway.pem")
        assert published_at_primary(place, in_use), "whatever is used is published"
        rolled = in_use != old and [file.name for file in folder.iterdir()] == ["gateway.pem"]
        if rolled:
            break
    assert rolled
    assert published(place, in_use) == {True}


def published_at_primary(place, key):
    return key.to_base64()[-40:] in at(place[1], "7.2.0.192.in-addr.arpa", "TXT").replace('"', "")


def test_without_updates_it_says_what_to_publish_and_goes_on_when_it_is_there(place, gateway):
    """By hand, with nsupdate and the script that `oegw records show` prints."""
    directory, primary, _ = place
    assert oegw(gateway, "records", "publish").returncode == 0
    configure(gateway.parent, primary, None)
    told = oegw(gateway, "keys", "roll")
    assert told.returncode == 1
    assert "to be published, beside what is there" in told.stdout
    script = f"server {primary}\n" + oegw(gateway, "records", "show", "--nsupdate").stdout
    # nsupdate follows no alias: the administrator of such a zone says the name behind it.
    script = script.replace("66.100.51.198.in-addr", "66.64-79.100.51.198.in-addr")
    subprocess.run(["nsupdate", "-k", str(directory / "tsig.key")], input=script, text=True, check=True, timeout=30)
    seen = oegw(gateway, "keys", "roll")
    assert (seen.returncode, seen.stderr) == (0, "")
    assert "every server has the new key's records" in seen.stdout
    configure(gateway.parent, primary, directory / "tsig.key")
    gone = oegw(gateway, "keys", "retire")
    assert (gone.returncode, gone.stderr) == (0, "")
    assert not (gateway.parent / "private/gateway.next.pem").exists()


@pytest.mark.parametrize("tsig, complaint", [
    ("absent", "No such file"), ("nonsense", "no key of the form that `tsig-keygen"), ("open", "say `chmod o="),
    ("another", "it has another key")])
def test_update_that_is_not_allowed_is_one_clear_error(place, gateway, tmp_path, tsig, complaint):
    file = tmp_path / "tsig.key"
    if tsig != "absent":
        text = subprocess.run(["tsig-keygen", "oegw"], capture_output=True, text=True, check=True, timeout=20).stdout
        file.write_text("key oegw" if tsig == "nonsense" else text)
        file.chmod(0o644 if tsig == "open" else 0o600)
    configure(gateway.parent, place[1], file)
    refused = oegw(gateway, "records", "publish")
    assert refused.returncode == 2
    assert complaint in refused.stderr and refused.stderr.count("\n") == 1


def test_server_that_does_not_answer_is_named(place, gateway):
    configure(gateway.parent, place[1], None, UNSERVED)
    refused = oegw(gateway, "records", "check")
    assert refused.returncode == 1, refused.stderr
    assert "missing" in refused.stdout
