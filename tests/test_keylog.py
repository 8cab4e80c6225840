"""`oegw debug keylog`: Wireshark reads a capture of ours with it; it is private and ends by itself."""

import os
import stat
import subprocess
from dataclasses import replace

import pytest
from twisted.internet.task import Clock

from oesvc.ike.datagram import Datagram, Endpoint
from oesvc.ike.events import ChannelUp, SasReady
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.offers import RFC4322
from oesvc.ipsec.sa import EspTransform, IpsecSa, UdpPorts
from oesvc.keylog import ESP_KEYS, IKE_KEYS, KeyLog
from tests.esp import protect
from tests.ike.pair import ALICE, BOB, Pair, private_key
from tests.ike.pcap import ip_packet, udp_packet, write_packets, write_pcap

ESP = 50


def keyed() -> Pair:
    pair = Pair()
    pair.initiate()
    return pair.run(1)


def write(log: KeyLog, pair: Pair) -> None:
    for event in pair.a.heard(ChannelUp) + pair.a.heard(SasReady):
        log.heard(event)


def test_capture_opens_with_every_message_decrypted(tmp_path):
    pair, directory = keyed(), tmp_path / "wireshark"
    log = KeyLog(pair.a.engine, Clock(), directory)
    log.start(60)
    write(log, pair)
    pair.do(pair.a, pair.a.engine.delete_tunnel, 1)
    pair.run(1)
    write_pcap(tmp_path / "capture.pcap", pair.capture)
    result = subprocess.run(
        ["tshark", "-r", str(tmp_path / "capture.pcap"), "-T", "fields", "-e", "isakmp.typepayload"], check=True,
        capture_output=True, text=True, timeout=60, env={**os.environ, "WIRESHARK_CONFIG_DIR": str(directory)})
    payloads = [line.split(",") for line in result.stdout.splitlines()]
    assert payloads[4] == payloads[5] == ["5", "9"], "main mode"
    assert payloads[6][:2] == ["8", "1"] and payloads[8] == ["8"], "quick mode"
    assert payloads[-1] == ["8", "12"], "delete"
    assert "esp_sa" not in result.stderr, "the table of SAs is read too"


@pytest.mark.parametrize("esp", RFC4322.esp, ids=str)
def test_wireshark_decrypts_every_transform(tmp_path, esp: EspTransform):
    settings = {"profile": RFC4322.__class__("one", RFC4322.phase1[:1], (esp,))}
    pair = Pair(EngineConfig(private_key("a"), **settings), EngineConfig(private_key("b"), **settings))
    pair.initiate()
    pair.run(1)
    log = KeyLog(pair.a.engine, Clock(), tmp_path)
    log.start(60)
    write(log, pair)
    there, back = ({sa.flow.source: sa for sa in pair.a.tunnel_sas()}[host] for host in (ALICE, BOB))
    said = [(there, 5001), (back, 5002), (replace(there, udp=UdpPorts(4500, 4500)), 5003)]
    packets = [esp_packet(sa, sequence, port) for sequence, (sa, port) in enumerate(said, 1)]
    write_packets(tmp_path / "capture.pcap", packets)
    result = subprocess.run(
        ["tshark", "-r", str(tmp_path / "capture.pcap"), "-T", "fields", "-E", "occurrence=l", "-e", "ip.src", "-e",
         "udp.dstport", "-e", "esp.icv_good", "-e", "_ws.malformed"], check=True, capture_output=True, text=True,
        timeout=60, env={**os.environ, "WIRESHARK_CONFIG_DIR": str(tmp_path)})
    assert result.stdout.splitlines() == [f"{sa.flow.source}\t{port}\t1\t" for sa, port in said]
    assert "esp_sa" not in result.stderr


def esp_packet(sa: IpsecSa, sequence: int, port: int) -> bytes:
    """A UDP datagram to this port inside, between the gateways outside."""
    inner = udp_packet(Datagram(b"what nobody else is to read", Endpoint(sa.flow.source, 4000),
                                Endpoint(sa.flow.destination, port)))
    protected = protect(sa, sequence, inner)
    if sa.udp is None:
        return ip_packet(sa.source, sa.destination, ESP, protected)
    ends = Endpoint(sa.source, sa.udp.source), Endpoint(sa.destination, sa.udp.destination)
    return udp_packet(Datagram(protected, *ends))


def test_keys_are_private_and_nothing_is_written_before_or_after(tmp_path):
    pair, clock = keyed(), Clock()
    log = KeyLog(pair.a.engine, clock, tmp_path / "wireshark")
    write(log, pair)
    assert not log.directory.exists()
    log.start(60)
    write(log, pair)
    files = [log.directory / name for name in (IKE_KEYS, ESP_KEYS)]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
    assert [len(file.read_text().splitlines()) for file in files] == [1, 2]
    clock.advance(61)
    write(log, pair)
    assert not log.on and [len(file.read_text().splitlines()) for file in files] == [1, 2]


def test_starting_again_begins_with_empty_files_and_a_new_timer(tmp_path):
    pair, clock = keyed(), Clock()
    log = KeyLog(pair.a.engine, clock, tmp_path)
    log.start(60)
    write(log, pair)
    clock.advance(50)
    log.start(60)
    clock.advance(50)
    assert log.on and (tmp_path / IKE_KEYS).read_text() == ""
    log.stop()
    assert not log.on and not clock.getDelayedCalls()


@pytest.mark.parametrize("seconds", [0, -1, 1e9, float("nan")])
def test_absurd_times_are_refused(tmp_path, seconds):
    log = KeyLog(keyed().a.engine, Clock(), tmp_path / "wireshark")
    with pytest.raises(ValueError, match="at most 86400"):
        log.start(seconds)
    assert not log.on and not log.directory.exists()


def test_link_in_place_of_the_file_is_not_followed(tmp_path):
    pair = keyed()
    log = KeyLog(pair.a.engine, Clock(), tmp_path)
    log.start(60)
    (tmp_path / ESP_KEYS).unlink()
    (tmp_path / ESP_KEYS).symlink_to(tmp_path / "elsewhere")
    write(log, pair)
    assert not log.on and not (tmp_path / "elsewhere").exists()
