"""Checks of this host: configuration, key, files, ports, kernel, sysctls, interfaces, clock."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_network

from oesvc.oe.classes import Network
from oesvc.operator.doctor.facts import Daemon, Facts, Finding, Interface, Severity
from oesvc.operator.doctor.firewall import outside_interface
from oesvc.operator.doctor.nat import masquerading

PROBLEM, WARNING = Severity.PROBLEM, Severity.WARNING
IKE_PORTS = (500, 4500)
PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
                                 "127.0.0.0/8", "fc00::/7", "fe80::/10")))
"Networks that the reverse map of the Internet does not speak for (RFC 1918, 6598, 3927, 4193)."
UNITS = {"charon": "strongswan-starter strongswan", "charon-systemd": "strongswan", "pluto": "ipsec", "iked": "iked",
         "racoon": "racoon", "isakmpd": "isakmpd"}
"systemd's names of other IKE daemons."
IPV6_MTU = 1280
ESP_OVERHEAD = 73
"Octets at most that ESP in tunnel mode adds to an IPv4 datagram (AES-CBC with SHA-512), UDP encapsulation aside."
ENOUGH_DATAGRAMS = 10
"Without an answer to any of so many, traffic is seldom one-way by intention."
ANCHORS_OLD = 30 * 86400
"Seconds: RFC 5011's hold-down time; who has not looked for longer may miss a roll-over."


def configuration(facts: Facts) -> Iterator[Finding]:
    if facts.complaint:
        yield Finding(PROBLEM, f"the configuration cannot be used: {facts.complaint}",
                      "mend that place; then: systemctl restart oegw")


def key_file(facts: Facts) -> Iterator[Finding]:
    if facts.key_complaint and facts.settings:
        file = facts.settings.private_key
        commands = {"no such file": f"oegw keys gen --config {facts.file}", "others may read": f"chmod 600 {file}",
                    "it belongs to": f"chown --reference={facts.settings.state_directory} {file}"}
        yield Finding(PROBLEM, f"the private key cannot be used: {facts.key_complaint}",
                      next((command for said, command in commands.items() if said in facts.key_complaint),
                           f"mv {file} {file}.bad && oegw keys gen --config {facts.file}; then publish its records"))


def state_directory(facts: Facts) -> Iterator[Finding]:
    if facts.state_complaint and facts.settings:
        directory = facts.settings.state_directory
        full = "space" in facts.state_complaint
        yield Finding(PROBLEM, f"nothing can be written into the state directory {directory}: {facts.state_complaint}",
                      f"df -h {directory}; make room there" if full else f"install -d -m 0700 {directory}")


def private_clients(facts: Facts) -> Iterator[Finding]:
    """For a private address the DNS can vouch for nobody."""
    outside = outside_interface(facts)
    for client in facts.settings.clients if facts.settings else ():
        if any(_within(client, network) for network in PRIVATE):
            yield Finding(PROBLEM, f"[gateway] clients: {client} is private; the DNS of the Internet has no records "
                                   "for these addresses, so nothing can be encrypted for them",
                          f"give these hosts public addresses; or have them translated into this gateway's, which it "
                          f"protects: write translated = {client}, not clients, and where no rule of a firewall "
                          f"translates them yet: {masquerading(client, outside.name if outside else 'eth0')}")


def interfaces_there(facts: Facts) -> Iterator[Finding]:
    if not facts.settings or not facts.interfaces:
        return
    names = {one.name for one in facts.interfaces}
    for inside in facts.settings.inside:
        if inside not in names:
            yield Finding(PROBLEM, f"[gateway] inside: there is no interface {inside} on this host; there are "
                                   f"{', '.join(sorted(names - {'lo'}))}",
                          "inside = the one that leads to the clients")
    own = {network.ip for one in facts.interfaces for network in one.networks}
    for address in facts.settings.addresses:
        if address not in own:
            yield Finding(PROBLEM, f"[gateway] address: {address} is no address of this host; it has "
                                   f"{', '.join(map(str, sorted(own, key=str)))}",
                          "address = one of those; where a NAT translates it, write the outer one into [ike] identity")


def client_masks(facts: Facts) -> Iterator[Finding]:
    """What is attached inside and is not among the clients goes out in clear, and nothing says so."""
    if facts.settings is None:
        return
    for interface in _inside(facts):
        for network in (each.network for each in interface.networks):
            overlapping = [client for client in facts.settings.clients if _overlap(client, network)]
            if overlapping and not any(_within(network, client) for client in overlapping):
                listed = ", ".join(map(str, overlapping))
                yield Finding(PROBLEM, f"[gateway] clients: {listed} is only a part of {network}, which is attached to "
                                       f"{interface.name}: other hosts there are forwarded in clear",
                              f"clients = {network}")
            elif not overlapping:
                yield Finding(WARNING, f"[gateway] clients: {network}, which is attached to {interface.name}, is not "
                                       "among them: its hosts are forwarded in clear", f"clients = ... {network}")
    for host in facts.hosts:
        if host not in facts.addresses and not any(host in client for client in facts.settings.clients):
            yield Finding(PROBLEM, f"{host} is not among [gateway] clients: this gateway does not encrypt for it",
                          f"clients = ... {ip_network(host)}, or the network that it is in")


def other_daemons(facts: Facts) -> Iterator[Finding]:
    for port in IKE_PORTS:
        held = [holder for holder in facts.holders if holder.port == port and holder.pid != facts.daemon_pid]
        for holder in held[:1]:
            unit = UNITS.get(holder.command)
            yield Finding(PROBLEM, f"another program holds UDP port {port}: {holder.command} (process {holder.pid})",
                          f"systemctl disable --now {unit}; systemctl restart oegw" if unit else
                          f"stop it (ss -lunp 'sport = {port}' shows it); then: systemctl restart oegw")
        if not held and facts.daemon is Daemon.RUNS and facts.daemon_pid and not any(
                holder.port == port for holder in facts.holders):
            yield Finding(PROBLEM, f"the daemon runs, but UDP port {port} is not open", "systemctl restart oegw")


def kernel_parts(facts: Facts) -> Iterator[Finding]:
    for what, complaint in facts.kernel.items():
        yield Finding(PROBLEM, f"this kernel has no {what}: {complaint}",
                      "install a distribution's own kernel (Debian: apt install linux-image-amd64) and start it; "
                      "a container has that of its host")


def daemon_runs(facts: Facts) -> Iterator[Finding]:
    """After what keeps it from running."""
    if facts.daemon in (Daemon.RUNS, Daemon.HIDDEN):
        return
    control = facts.settings.control_socket if facts.settings else "its control socket"
    if facts.daemon is Daemon.ABSENT:
        what = "no daemon runs"
    elif facts.daemon is Daemon.DEAD:
        what = f"no daemon runs: {control} is left of one that died"
    else:
        what = f"the daemon does not answer at {control}: {facts.daemon_says}"
    if published := _published(facts):
        what += f", but the records of {', '.join(published)} are published: peers that trust them cannot reach you"
    log = "; journalctl -u oegw says why it died" if facts.daemon is Daemon.DEAD else ""
    yield Finding(PROBLEM, what, f"systemctl restart oegw{log}" + ("; or take the records out" if published else ""))


def esp_answered(facts: Facts) -> Iterator[Finding]:
    """What goes out and never comes back: with one peer it may be all one-way traffic, with all peers hardly."""
    carried: dict[str, Counter[str]] = {}
    for sa in facts.sas:
        peer = sa["to"] if sa["way"] == "out" else sa["from"]
        carried.setdefault(peer, Counter())[sa["way"]] += sa["datagrams"] or 0
    used = {peer: count for peer, count in carried.items() if count["out"] >= ENOUGH_DATAGRAMS}
    silent = [peer for peer, count in used.items() if not count["in"]]
    if silent:
        all_of_them = len(silent) == len(used) > 1
        yield Finding(PROBLEM if all_of_them else WARNING,
                      f"ESP goes out to {', '.join(silent)} ({sum(used[peer]['out'] for peer in silent)} datagrams), "
                      "and none comes back: something on the way may drop it",
                      "let IP protocol 50 pass in both directions, in the firewall and at the provider; "
                      "tcpdump -n esp shows what comes")


def _published(facts: Facts) -> list[str]:
    """Subjects whose records send peers to this gateway."""
    ours = {str(address) for address in facts.addresses} | {name for name in facts.dns if isinstance(name, str)}
    return [str(subject) for subject, said in facts.dns.items() if any(
        record["delegation"] and record["delegation"]["gateway"] in ours
        for look_up in said["lookups"] for record in look_up["records"])]


def sysctls(facts: Facts) -> Iterator[Finding]:
    for name, bad, severity, why, applies in _sysctl_rows(facts):
        if applies and facts.sysctls.get(name) == bad:
            right = "0" if bad != "0" else "1"
            yield Finding(severity, f"net.{name.replace('/', '.')} is {bad}: {why}",
                          f"sysctl -w net.{name.replace('/', '.')}={right}, and the same line in "
                          "/etc/sysctl.d/60-oegw.conf")


def _sysctl_rows(facts: Facts) -> Iterator[tuple[str, str, Severity, str, bool]]:
    """Name, bad value, how bad, why, and whether it matters here."""
    clients = facts.settings.clients if facts.settings else ()
    families = {client.version for client in clients}
    yield ("ipv4/ip_forward", "0", PROBLEM, "nothing is forwarded for the clients", 4 in families)
    yield ("ipv6/conf/all/forwarding", "0", PROBLEM, "nothing is forwarded for the IPv6 clients", 6 in families)
    outside = [one.name for one in facts.interfaces if {each.ip for each in one.networks} & set(facts.addresses)]
    for name in ("all", *(one.name for one in facts.interfaces)):
        yield (f"ipv4/conf/{name}/disable_xfrm", "1", PROBLEM, "what leaves there is not encrypted", name != "lo")
        yield (f"ipv4/conf/{name}/disable_policy", "1", PROBLEM, "clear text is let in where ESP is due", name != "lo")
    for interface in outside:
        yield (f"ipv4/conf/{interface}/rp_filter", "1", WARNING, "with several ways out, what comes in by another one "
               "than answers would take is dropped", len(outside) > 1)
        yield (f"ipv4/conf/{interface}/send_redirects", "1", WARNING, "clients on that link are told to go around this "
               "gateway", any(_overlap(client, each.network) for client in clients for one in facts.interfaces
                              if one.name == interface for each in one.networks))
    yield ("ipv4/ip_no_pmtu_disc", "1", WARNING, "ESP leaves in fragments instead of telling the clients the path's "
           "MTU", True)


def mtus(facts: Facts) -> Iterator[Finding]:
    least = IPV6_MTU + ESP_OVERHEAD
    for interface in facts.interfaces:
        if interface.name != "lo" and interface.networks and interface.mtu < least:
            severe = PROBLEM if interface.mtu < IPV6_MTU else WARNING
            yield Finding(severe, f"the MTU of {interface.name} is {interface.mtu}: datagrams of {IPV6_MTU} octets, "
                                  "which IPv6 promises to carry, do not fit there within ESP",
                          f"ip link set {interface.name} mtu 1500, if the link can carry that; {least} are enough")


def clock_steered(facts: Facts) -> Iterator[Finding]:
    if facts.synchronized is False:
        yield Finding(WARNING, f"the clock of this host ({date(facts.now)}) is not synchronized; DNSSEC and lifetimes "
                               "of keys depend on it", "apt install systemd-timesyncd; timedatectl set-ntp true")


def anchors_fresh(facts: Facts) -> Iterator[Finding]:
    if facts.anchors_complaint:
        yield Finding(PROBLEM, f"the trust anchors cannot be used: {facts.anchors_complaint}",
                      "apt install --reinstall dns-root-data; systemctl restart oegw")
    elif facts.anchors_refreshed and facts.now - facts.anchors_refreshed > ANCHORS_OLD:
        days = (facts.now - facts.anchors_refreshed) / 86400
        yield Finding(WARNING, f"the keys of the trust anchor were last seen {days:.0f} days ago; a roll-over may have "
                               "been missed", "let the daemon run with a resolver that answers; "
                                              "apt install --only-upgrade dns-root-data")


def seen_as_root(facts: Facts) -> Iterator[Finding]:
    if not facts.as_root:
        yield Finding(WARNING, "not run as root: ports' owners, firewall rules and the kernel were not looked at",
                      "sudo oegw doctor")


def _inside(facts: Facts) -> list[Interface]:
    """Interfaces that lead to clients."""
    assert facts.settings
    return [one for one in facts.interfaces if one.name in facts.settings.inside]


def _within(network: Network, other: Network) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]


def _overlap(network: Network, other: Network) -> bool:
    return network.version == other.version and network.overlaps(other)


def date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
