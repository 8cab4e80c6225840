"""The resolvers that we compare ourselves with, each as near to Debian 12's own configuration as a root of our own on
loopback allows. What differs stands in each, and why no verdict can come from that. All find the servers of the tree
by hints for the root and by delegations, at port 53; paths, addresses, and what runs in the background, are the tests'.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.zones import Endpoint, root_hints


@dataclass(frozen=True)
class Root:
    """Where resolvers begin."""

    name_server: str
    address: str
    anchor: Path
    "A file of its DS."


def unbound_conf(directory: Path, listen: Endpoint, root: Root) -> str:
    """For `unbound -d -c FILE`."""
    # Debian's file only names the anchor, which RFC 5011 keeps up to date; here it is ours. do-not-query-localhost
    # says whom it may ask: in the tree only our servers are named, so it keeps nobody from saying anything.
    anchor = directory / "unbound.anchor"
    anchor.write_text(root.anchor.read_text())
    return f"""
server:
  interface: {listen[0]}@{listen[1]}
  directory: "{directory}"
  chroot: ""
  username: ""
  pidfile: "{directory}/unbound-peer.pid"
  use-syslog: no
  auto-trust-anchor-file: "{anchor}"
  root-hints: "{_hints(directory, root)}"
  do-not-query-localhost: no
remote-control:
  control-enable: no
"""


def named_conf(directory: Path, listen: Endpoint, root: Root) -> str:
    """For `named -f -c FILE`."""
    # Debian has `dnssec-validation auto`; bindkeys-file puts our root's key where ISC's list would stand. The cache
    # may be as large as a share of the memory there: the whole tree fits into this one. Nothing is in Debian's own
    # zones (localhost, 127, 0 and 255) that is asked for.
    keys = directory / "bind.keys"
    owner, _, _, tag, algorithm, digest_type, digest = root.anchor.read_text().split()
    keys.write_text(f'trust-anchors {{ {owner} initial-ds {tag} {algorithm} {digest_type} "{digest}"; }};\n')
    return f"""
options {{
  directory "{directory}"; pid-file none; lock-file none; session-keyfile "{directory}/named.session";
  listen-on port {listen[1]} {{ {listen[0]}; }}; listen-on-v6 {{ none; }};
  dnssec-validation auto; bindkeys-file "{keys}";
  max-cache-size 32M;
}};
controls {{ }};
zone "." {{ type hint; file "{_hints(directory, root)}"; }};
"""


def kresd_conf(_directory: Path, listen: Endpoint, root: Root) -> str:
    """For `kresd -n -c FILE DIRECTORY`."""
    # The modules are those of Debian's file, and its anchor too is a file that is not kept up to date. ALLOW_LOCAL
    # says whom it may ask, as above. The whole tree fits into the cache.
    return f"""
net.listen('{listen[0]}', {listen[1]}, {{ kind = 'dns' }})
modules = {{ 'hints > iterate', 'stats', 'predict' }}
cache.size = 10 * MB
trust_anchors.remove('.')
trust_anchors.add_file('{root.anchor}', true)
hints.root({{ ['{root.name_server}'] = '{root.address}' }})
option('ALLOW_LOCAL', true)
"""


def _hints(directory: Path, root: Root) -> Path:
    hints = directory / "hints"
    hints.write_text(root_hints(root.name_server, [root.address]))
    return hints


PEERS: dict[str, tuple[str, Callable[[Path, Endpoint, Root], str]]] = {
    "unbound": ("127.0.0.53", unbound_conf),
    "named": ("127.0.0.1", named_conf),
    "kresd": ("127.0.0.55", kresd_conf),
}
"Each with the address at which it listens: BIND takes only those of interfaces."
