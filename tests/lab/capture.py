"""A tap on a wire by tcpdump, and a small reader of what it wrote: datagrams as a person would name them."""

import ipaddress
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

ETHERTYPES = {0x0800: 4, 0x86DD: 6}
ICMP, TCP, UDP, ESP, ICMPV6 = 1, 6, 17, 50, 58
PROTOCOLS = {ICMP: "ICMP", TCP: "TCP", UDP: "UDP", ESP: "ESP", ICMPV6: "ICMPv6"}
EXCHANGES = {2: "main mode", 4: "aggressive mode", 5: "informational", 32: "quick mode"}
DNS_TYPES = {1: "A", 2: "NS", 16: "TXT", 25: "KEY", 28: "AAAA", 43: "DS", 45: "IPSECKEY", 48: "DNSKEY"}
ISAKMP_PORTS = {500, 4500}


@dataclass(frozen=True)
class Packet:
    """One datagram. `time` is in UNIX seconds; `payload` is what follows the UDP header, else the IP header."""

    time: float
    source: str
    destination: str
    protocol: int
    source_port: int
    destination_port: int
    payload: bytes

    @property
    def flow(self) -> tuple[str, str]:
        return self.source, self.destination

    @property
    def is_esp(self) -> bool:
        return self.protocol == ESP or (4500 in self._ports and self.payload[:4] != bytes(4) and len(self.payload) > 1)

    @property
    def is_isakmp(self) -> bool:
        return self.protocol == UDP and bool(ISAKMP_PORTS & self._ports) and not self.is_esp

    @property
    def is_dns(self) -> bool:
        return self.protocol in (UDP, TCP) and 53 in self._ports

    @property
    def spi(self) -> int:
        """Of an ESP datagram."""
        return int.from_bytes(self.payload[:4], "big")

    def describe(self) -> str:
        """One line's worth: `DNS query TXT 66.0.2.192.in-addr.arpa`, `ISAKMP main mode`, `ESP spi 0x1234`."""
        if self.is_esp:
            return f"ESP spi {self.spi:#010x} sequence {int.from_bytes(self.payload[4:8], 'big')}"
        if self.is_isakmp:
            header = self.payload[4:] if 4500 in self._ports else self.payload
            exchange = EXCHANGES.get(header[18], f"exchange {header[18]}") if len(header) >= 28 else "cut short"
            return f"ISAKMP {exchange}" + (" encrypted" if len(header) >= 28 and header[19] & 1 else "")
        if self.is_dns and self.protocol == UDP and len(self.payload) > 12:
            return self._describe_dns()
        return f"{PROTOCOLS.get(self.protocol, f'protocol {self.protocol}')} in clear"

    @property
    def _ports(self) -> set[int]:
        return {self.source_port, self.destination_port} if self.protocol in (UDP, TCP) else set()

    def _describe_dns(self) -> str:
        labels, at = [], 12
        while at < len(self.payload) and (length := self.payload[at]):
            labels.append(self.payload[at + 1:at + 1 + length].decode("ascii", "replace"))
            at += 1 + length
        kind = int.from_bytes(self.payload[at + 1:at + 3], "big")
        what = "answer" if self.payload[2] & 0x80 else "query"
        return f"DNS {what} {DNS_TYPES.get(kind, kind)} {'.'.join(labels).lower() or '.'}"

    def __str__(self) -> str:
        return f"{self.time:.6f} {self.source} -> {self.destination}: {self.describe()}"


class Capture:
    """tcpdump for as long as the `with` lasts. `packets()` may be asked for meanwhile and afterwards."""

    def __init__(self, popen: Callable[..., subprocess.Popen[bytes]], folder: Path, name: str, interface: str,
                 expression: str) -> None:
        self._popen = popen
        self.file = folder / f"{name}.pcap"
        self._log = folder / f"{name}.tcpdump"
        self._command = ["tcpdump", "-i", interface, "-n", "-s", "0", "-U", "--immediate-mode", "-B", "16384",
                         "-Z", "root", "-w", str(self.file), *([expression] if expression else [])]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Capture":
        self._process = self._popen(self._command, self._log.name)
        deadline = time.monotonic() + 60
        while b"listening on" not in self._log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"tcpdump did not begin: {self._log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.end()

    def end(self) -> list[Packet]:
        """Stop the tap and return all it saw; again does no harm. Raises if the kernel dropped frames."""
        assert self._process
        if self._process.poll() is None:
            # What has arrived but is not yet written: tcpdump empties its ring when it is interrupted.
            time.sleep(0.1)
            self._process.terminate()
            self._process.wait(30)
            if b"\n0 packets dropped by kernel" not in self._log.read_bytes():
                raise RuntimeError(f"the tap lost frames: {self._log.read_text()}")
        return self.packets()

    def packets(self) -> list[Packet]:
        """The IP datagrams seen so far, in order."""
        return list(read_pcap(self.file.read_bytes()))


def read_pcap(data: bytes) -> Iterator[Packet]:
    """Datagrams of a file in libpcap's format of Ethernet frames, IPv4 or IPv6 without extension headers.

    A record that is not yet whole, and frames of other protocols, are left out.
    """
    if len(data) < 24:
        return
    order = "<" if data[:4] == b"\xd4\xc3\xb2\xa1" else ">"
    at = 24
    while at + 16 <= len(data):
        seconds, microseconds, length, _ = struct.unpack_from(f"{order}IIII", data, at)
        frame = data[at + 16:at + 16 + length]
        if len(frame) < length:
            return
        at += 16 + length
        packet = _read_frame(seconds + microseconds / 1e6, frame)
        if packet is not None:
            yield packet


def _read_frame(moment: float, frame: bytes) -> Packet | None:
    version = ETHERTYPES.get(int.from_bytes(frame[12:14], "big"))
    datagram = frame[14:]
    if version == 4 and len(datagram) >= 20:
        header, total, protocol = (datagram[0] & 15) * 4, int.from_bytes(datagram[2:4], "big"), datagram[9]
        source, destination = datagram[12:16], datagram[16:20]
    elif version == 6 and len(datagram) >= 40:
        header, total, protocol = 40, 40 + int.from_bytes(datagram[4:6], "big"), datagram[6]
        source, destination = datagram[8:24], datagram[24:40]
    else:
        return None
    payload, ports = datagram[header:total], (0, 0)
    if protocol in (UDP, TCP) and len(payload) >= 8:
        ports = struct.unpack_from("!HH", payload)
        payload = payload[8:] if protocol == UDP else payload
    return Packet(moment, str(ipaddress.ip_address(source)), str(ipaddress.ip_address(destination)), protocol,
                  *ports, payload)
