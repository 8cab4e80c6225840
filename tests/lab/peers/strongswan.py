"""strongSwan: charon, with its configuration handed over by swanctl."""

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from oesvc.ike.crypto.keymat import Hash
from oesvc.ike.v1.offers import Cipher
from oesvc.ipsec.sa import EspTransform, Integrity
from oesvc.keys import key_pair
from tests.lab.keys import private_key_file
from tests.lab.network import Network
from tests.lab.peers.files import GATEWAY, STRONGSWAN
from tests.lab.peers.peer import DEAD, PATIENCE, Peer, inside
from tests.lab.peers.suites import Suite

CIPHERS = {Cipher.DES3_CBC: "3des", Cipher.AES_128_CBC: "aes128", Cipher.AES_256_CBC: "aes256"}
HASHES = {Hash.MD5: "md5", Hash.SHA1: "sha1", Hash.SHA2_256: "sha256", Hash.SHA2_384: "sha384",
          Hash.SHA2_512: "sha512"}
INTEGRITIES = {Integrity.HMAC_MD5_96: "md5", Integrity.HMAC_SHA1_96: "sha1", Integrity.HMAC_SHA2_256_128: "sha256",
               Integrity.HMAC_SHA2_384_192: "sha384", Integrity.HMAC_SHA2_512_256: "sha512"}
PLUGINS = "random nonce openssl hmac kdf pem pkcs1 pkcs8 pubkey constraints dnskey kernel-netlink socket-default vici"

DAEMON = """charon {{
  load = {plugins}
  install_routes = no
  filelog {{
    log {{
      path = {log}
      flush_line = yes
      default = 1
      ike = 2
    }}
  }}
  plugins {{
    vici {{
      socket = unix:///run/charon.vici
    }}
  }}
}}
swanctl {{
  load = random openssl pem pkcs1 pkcs8 pubkey
}}
"""

TUNNEL = """connections {{
  oe {{
    version = 1
    local_addrs = {theirs}
    remote_addrs = {ours}
    proposals = {ike}
    encap = {encap}
    reauth_time = {seconds}s
    over_time = 10s
    rand_time = 0s
    dpd_delay = {silence}s
    dpd_timeout = {dead}s
    local {{
      auth = pubkey
      pubkeys = {me}.pem
      id = {theirs}
    }}
    remote {{
      auth = pubkey
      pubkeys = {other}.pem
      id = {ours}
    }}
    children {{
      oe {{
        mode = tunnel
        dpd_action = clear
        local_ts = {bob}/32
        remote_ts = {alice}/32
        esp_proposals = {esp}
      }}
    }}
  }}
}}
"""


class StrongSwan(Peer):

    title = "strongSwan 5.9.8"

    def __init__(self, net: Network, gateway: str = GATEWAY) -> None:
        super().__init__(net, gateway)
        self._run, self._swanctl = self.folder / "run", self.folder / "swanctl"
        self.socket = self._run / "charon.vici"
        self._mounts = [(STRONGSWAN / "usr/lib/ipsec", "/usr/lib/ipsec"), (self._run, "/run")]
        for folder in (self._run, self._swanctl / "private", self._swanctl / "pubkey"):
            folder.mkdir(parents=True)
        (self.folder / "strongswan.conf").write_text(DAEMON.format(plugins=PLUGINS, log=self.folder / "log"))
        for name in ("sg-a", "sg-b"):
            public = key_pair.load(private_key_file(name)).public_key()
            (self._swanctl / f"pubkey/{name}.pem").write_bytes(
                public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        (self._swanctl / f"private/{gateway}.pem").write_text(private_key_file(gateway).read_text())

    def command(self) -> list[str]:
        return inside(self._mounts, self._variables, "/usr/lib/ipsec/charon")

    def configure(self, suite: Suite, bob: str, channel_seconds: int = 14400, silence: int = 0,
                  encapsulate: bool = False) -> None:
        group = str(suite.phase1.group)
        ike = f"{CIPHERS[suite.phase1.cipher]}-{HASHES[suite.phase1.hash]}-{group}"
        (self._swanctl / "swanctl.conf").write_text(TUNNEL.format(
            **self.ends(bob), ike=ike, esp=f"{_esp(suite.esp)}-{group}",
            seconds=channel_seconds - 10, silence=silence, dead=DEAD, encap="yes" if encapsulate else "no"))
        self._tell("--load-all", "--noprompt")

    def initiate(self) -> None:
        self._tell("--initiate", "--child", "oe", "--timeout", PATIENCE)

    def trap(self) -> None:
        self._tell("--install", "--child", "oe")

    def rekey_tunnel(self) -> None:
        self._tell("--rekey", "--child", "oe")

    def delete(self) -> None:
        self._tell("--terminate", "--ike", "oe", "--timeout", PATIENCE)

    @property
    def _variables(self) -> dict[str, str]:
        return {"STRONGSWAN_CONF": str(self.folder / "strongswan.conf"), "SWANCTL_DIR": str(self._swanctl)}

    def _tell(self, *words: object) -> str:
        return self.run(self._mounts, self._variables, STRONGSWAN / "usr/sbin/swanctl", *words,
                        "--uri", "unix:///run/charon.vici")


def _esp(transform: EspTransform) -> str:
    if transform.integrity is None:
        return f"aes{transform.key_bits}gcm16"
    cipher = "3des" if transform.key_bits == 192 else f"aes{transform.key_bits}"
    return f"{cipher}-{INTEGRITIES[transform.integrity]}"
