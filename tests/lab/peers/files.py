"""What the peers need of files: packages unpacked by `tools/setup-lab peers`, and keys as libreswan wants them."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.lab.keys import private_key_file
from tests.lab.network import ROOT

UNPACKED = ROOT / ".cache/peers"
STRONGSWAN, LIBRESWAN = UNPACKED / "strongswan", UNPACKED / "libreswan"
GATEWAY = "sg-b"


def key_database(gateway: str) -> Path:
    """libreswan's database of keys; in it, this gateway's."""
    return UNPACKED / f"nss-{gateway}"


def make_key_database(gateway: str) -> None:
    """Import the lab's key of a gateway, in a certificate that nobody looks at: NSS takes in nothing else."""
    nss = key_database(gateway)
    key, made_of = private_key_file(gateway), nss / "made-of"
    if made_of.exists() and made_of.read_text() == key.read_text():
        return
    shutil.rmtree(nss, ignore_errors=True)
    nss.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        for command in (
                f"certutil -N -d sql:{nss} --empty-password",
                f"openssl req -x509 -new -key {key} -subj /CN={gateway} -days 3650 -out {folder}/certificate",
                f"openssl pkcs12 -export -inkey {key} -in {folder}/certificate -name {gateway} -passout pass:x "
                f"-out {folder}/both"):
            _run(command.split())
        _run(["pk12util", "-i", f"{folder}/both", "-d", f"sql:{nss}", "-W", "x", "-K", ""])
    made_of.touch(0o600)
    made_of.write_text(key.read_text())


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
