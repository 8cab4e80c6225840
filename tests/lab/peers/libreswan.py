"""libreswan: pluto, told by whack; addconn reads its configuration."""

import shutil

from oesvc.ike.crypto.groups import MODP, Group
from oesvc.ike.crypto.keymat import Hash
from oesvc.ike.v1.offers import Cipher
from oesvc.ipsec.sa import EspTransform, Integrity
from tests.lab.keys import public_keys
from tests.lab.network import Network
from tests.lab.peers.files import GATEWAY, LIBRESWAN, key_database
from tests.lab.peers.peer import DEAD, Peer, inside
from tests.lab.peers.suites import Suite

CIPHERS = {Cipher.DES3_CBC: "3des", Cipher.AES_128_CBC: "aes128", Cipher.AES_256_CBC: "aes256"}
HASHES = {Hash.MD5: "md5", Hash.SHA1: "sha1", Hash.SHA2_256: "sha2_256", Hash.SHA2_384: "sha2_384",
          Hash.SHA2_512: "sha2_512"}
INTEGRITIES = {Integrity.HMAC_MD5_96: "md5", Integrity.HMAC_SHA1_96: "sha1", Integrity.HMAC_SHA2_256_128: "sha2_256",
               Integrity.HMAC_SHA2_384_192: "sha2_384", Integrity.HMAC_SHA2_512_256: "sha2_512"}

# Its usual leftupdown sets a route, which SG-B has, and takes seconds.
CONFIGURATION = """config setup
    ikev1-policy=accept
    logfile={log}

conn oe
    left={theirs}
    leftid={theirs}
    leftsubnet={bob}/32
    leftrsasigkey=0s{their_key}
    leftupdown=%disabled
    right={ours}
    rightid={ours}
    rightsubnet={alice}/32
    rightrsasigkey=0s{our_key}
    type=tunnel
    ikev2=no
    authby=rsasig
    pfs=yes
    ikelifetime={seconds}s
    rekeymargin=10s
    rekeyfuzz=0%
    ike={ike}
    esp={esp}
    encapsulation={encapsulation}
"""
LIVENESS = """    dpddelay={silence}
    dpdtimeout={dead}
    dpdaction=clear
"""


class Libreswan(Peer):

    title = "libreswan 4.10"
    lacks = frozenset({Group.MODP_1024})

    def __init__(self, net: Network, gateway: str = GATEWAY) -> None:
        super().__init__(net, gateway)
        self._rundir = self.folder / "run"
        self.socket = self._rundir / "pluto.ctl"
        for folder in (self._rundir, self.folder / "ipsec.d/policies"):
            folder.mkdir(parents=True)
        shutil.copytree(key_database(gateway), self.folder / "nss")
        (self.folder / "ipsec.secrets").touch()
        (self.folder / "ipsec.conf").write_text(f"config setup\n    ikev1-policy=accept\n"
                                                f"    logfile={self.folder / 'log'}\n")
        self._keys = public_keys()

    def command(self) -> list[str]:
        folder = self.folder
        return inside([(LIBRESWAN / "usr/libexec/ipsec", "/usr/libexec/ipsec")],
                      {"PATH": f"{LIBRESWAN}/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin"}, "/usr/libexec/ipsec/pluto",
                      "--nofork", "--config", folder / "ipsec.conf", "--rundir", self._rundir,
                      "--nssdir", folder / "nss", "--ipsecdir", folder / "ipsec.d",
                      "--secretsfile", folder / "ipsec.secrets", "--logfile", folder / "log")

    def start(self) -> None:
        super().start()
        self._whack("--listen")

    def configure(self, suite: Suite, bob: str, channel_seconds: int = 14400, silence: int = 0,
                  encapsulate: bool = False) -> None:
        group = suite.phase1.group
        ike = f"{CIPHERS[suite.phase1.cipher]}-{HASHES[suite.phase1.hash]};dh{int(group)}"
        # It knows the elliptic groups in phase 1 only; phase 2 then follows without being told.
        esp = _esp(suite.esp) + (f";dh{int(group)}" if group in MODP else "")
        ends = self.ends(bob)
        (self.folder / "ipsec.conf").write_text(CONFIGURATION.format(
            log=self.folder / "log", **ends,
            their_key=self._keys[ends["me"]].to_base64(), our_key=self._keys[ends["other"]].to_base64(),
            ike=ike, esp=esp, seconds=channel_seconds, encapsulation="yes" if encapsulate else "auto")
            + (LIVENESS.format(silence=silence, dead=DEAD) if silence else ""))
        self.run([], {}, LIBRESWAN / "usr/libexec/ipsec/addconn", "--config", self.folder / "ipsec.conf",
                 "--ctlsocket", self.socket, "oe")

    def initiate(self) -> None:
        self._whack("--initiate", "--name", "oe")

    def trap(self) -> None:
        self._whack("--route", "--name", "oe")

    def rekey_tunnel(self) -> None:
        # Its --rekey-ipsec is for IKEv2.
        self.initiate()

    def delete(self) -> None:
        self._whack("--terminate", "--name", "oe")

    def _whack(self, *words: object) -> str:
        return self.run([], {}, LIBRESWAN / "usr/libexec/ipsec/whack", "--rundir", self._rundir, *words)


def _esp(transform: EspTransform) -> str:
    if transform.integrity is None:
        return f"aes_gcm{transform.key_bits}-null"
    cipher = "3des" if transform.key_bits == 192 else f"aes{transform.key_bits}"
    return f"{cipher}-{INTEGRITIES[transform.integrity]}"
