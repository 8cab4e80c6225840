"""What we send is IKEv1 to somebody who has never heard of us: tshark's dissector, unmodified."""

import subprocess
from dataclasses import replace

import pytest

from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.offers import PROFILES, RFC4322
from tests.ike.forge import channel_of
from tests.ike.pair import Pair, private_key
from tests.ike.pcap import write_pcap

FIELDS = ("_ws.malformed", "isakmp.exchangetype", "isakmp.typepayload", "_ws.expert.severity")
ERROR = 0x00800000


def dissect(path, pair: Pair) -> list[dict[str, list[str]]]:
    channel = channel_of(pair.a)
    keys = f"uat:ikev1_decryption_table:{channel.cookie_i.hex()},{channel.standing.secrets.cipher.key.hex()}"
    command = ["tshark", "-r", str(path), "-o", keys, "-T", "fields", "-E", "separator=|"]
    for field in FIELDS:
        command += ["-e", field]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return [dict(zip(FIELDS, (cell.split(",") if cell else [] for cell in line.split("|")), strict=True))
            for line in output.splitlines()]


@pytest.mark.conformance("C-1.1-02")
@pytest.mark.conformance("C-4.1-01")
@pytest.mark.parametrize("profile", [*PROFILES.values(), replace(RFC4322, phase1=RFC4322.phase1[-1:])],
                         ids=["modern", "rfc4322", "3des"])
def test_unmodified_dissector_parses_and_decrypts_every_payload(tmp_path, profile):
    pair = Pair(EngineConfig(private_key("a"), profile=profile), EngineConfig(private_key("b"), profile=profile))
    pair.initiate()
    pair.run()
    pair.do(pair.a, pair.a.engine.delete_tunnel, 1)
    pair.run(1)
    write_pcap(tmp_path / "handshake.pcap", pair.capture)
    packets = dissect(tmp_path / "handshake.pcap", pair)
    assert len(packets) == 11
    for packet in packets:
        assert not packet["_ws.malformed"]
        assert all(int(severity, 0) < ERROR for severity in packet["_ws.expert.severity"])
    assert [packet["isakmp.exchangetype"] for packet in packets] == [["2"]] * 6 + [["32"]] * 3 + [["5"]] * 2
    payloads = [packet["isakmp.typepayload"] for packet in packets]
    assert payloads[4] == payloads[5] == ["5", "9"], "ID and SIG, decrypted"
    assert [kind for kind in payloads[6] if kind not in ("2", "3")] == [*["8", "1", "10", "4", "5", "5", "11"]]
    assert payloads[8] == ["8"] and payloads[9] == payloads[10] == ["8", "12"]
