"""Which addresses of this host are protected, and on which of them IKE is served."""

import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from oesvc.kernel.addresses import WAITS, OwnAddress, outside_addresses
from oesvc.kernel.constants import IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TEMPORARY, IFA_F_TENTATIVE

ROOT = Path(__file__).parents[2]
OURS = ip_address("2001:db8::10")


class Host:
    """Its addresses; what is tentative is so for as long as the test says."""

    def __init__(self, flags: int, seconds: float = 1e9) -> None:
        self.flags, self.seconds, self.waited = flags, seconds, 0.0

    def addresses(self) -> list[OwnAddress]:
        tentative = self.flags & IFA_F_TENTATIVE if self.waited < self.seconds else 0
        return [OwnAddress(OURS, "eth0", self.flags & ~IFA_F_TENTATIVE | tentative)]

    def wait(self, seconds: float) -> None:
        self.waited += seconds


@pytest.mark.parametrize(("flags", "seconds", "lasting", "waited"), [
    (0x80, 0, True, 0),
    (IFA_F_TEMPORARY, 0, False, 0),
    (IFA_F_DEPRECATED, 0, False, 0),
    (IFA_F_TENTATIVE, 1, True, 1),
    (IFA_F_TENTATIVE, 1e9, False, sum(WAITS)),
    (IFA_F_TENTATIVE | IFA_F_DADFAILED, 1e9, False, 0),
])
def test_every_address_is_protected_and_the_lasting_ones_can_be_called(
        flags: int, seconds: float, lasting: bool, waited: float) -> None:
    host = Host(flags, seconds)
    own, = outside_addresses((), (), host.addresses, host.wait)
    assert (own.address, own.lasting, host.waited) == (OURS, lasting, waited)


def test_addresses_that_lead_to_clients_are_not_outside() -> None:
    listed = [OwnAddress(OURS, "lan0"), OwnAddress(ip_address("192.1.0.1"), "eth1"),
              OwnAddress(ip_address("192.1.1.4"), "eth0")]
    found = outside_addresses((ip_network("192.1.0.0/24"),), ("lan0",), lambda: listed)
    assert [str(own.address) for own in found] == ["192.1.1.4"]


def test_an_address_of_this_kernel_is_waited_for_until_a_socket_can_be_bound_to_it() -> None:
    """In a network namespace, on an interface whose link asks for the address first."""
    done = subprocess.run(["unshare", "-rn", "sh", "-ec", f"""
        ip tuntap add mode tap name tap0
        exec {sys.executable} -c '
import os, fcntl, socket, struct, subprocess
from oesvc.kernel.addresses import list_addresses, outside_addresses
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"tap0", 0x1002))
subprocess.run(["ip", "link", "set", "tap0", "up"], check=True)
subprocess.run("ip address add 2001:db8::10/64 dev tap0; ip address add 192.0.2.10/24 dev tap0", shell=True, check=True)
print(any(own.tentative for own in list_addresses()))
for own in outside_addresses((), ()):
    family = socket.AF_INET if own.address.version == 4 else socket.AF_INET6
    socket.socket(family, socket.SOCK_DGRAM).bind((str(own.address), 500))
    print(own.address, own.interface, own.lasting)
'"""], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.splitlines() == ["True", "192.0.2.10 tap0 True", "2001:db8::10 tap0 True"], done.stderr
