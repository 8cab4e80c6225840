"""What the peers need of files: their packages unpacked by `tools/setup-lab peers`, and SG-B's key as each wants it."""

import shutil
import subprocess
import tempfile

from tests.lab.keys import private_key_file
from tests.lab.network import ROOT

UNPACKED = ROOT / ".cache/peers"
STRONGSWAN, LIBRESWAN = UNPACKED / "strongswan", UNPACKED / "libreswan"
GATEWAY = "sg-b"
NSS = UNPACKED / f"nss-{GATEWAY}"
"libreswan's database of keys; in it, SG-B's."


def make_key_database() -> None:
    """Import the lab's key of SG-B, in a certificate that nobody looks at: NSS takes in nothing else."""
    key, made_of = private_key_file(GATEWAY), NSS / "made-of"
    if made_of.exists() and made_of.read_text() == key.read_text():
        return
    shutil.rmtree(NSS, ignore_errors=True)
    NSS.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        for command in (
                f"certutil -N -d sql:{NSS} --empty-password",
                f"openssl req -x509 -new -key {key} -subj /CN={GATEWAY} -days 3650 -out {folder}/certificate",
                f"openssl pkcs12 -export -inkey {key} -in {folder}/certificate -name {GATEWAY} -passout pass:x "
                f"-out {folder}/both"):
            _run(command.split())
        _run(["pk12util", "-i", f"{folder}/both", "-d", f"sql:{NSS}", "-W", "x", "-K", ""])
    made_of.touch(0o600)
    made_of.write_text(key.read_text())


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
