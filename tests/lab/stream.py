"""A stream of numbered datagrams, and who counts them: processes for hosts of the lab, until they get SIGTERM.

    python -m tests.lab.stream receive ADDRESS
    python -m tests.lab.stream send SOURCE DESTINATION RATE OCTETS

RATE a second on average, OCTETS behind the UDP header. In the end each prints a line of JSON: how many were sent in
how many seconds; how many came, how many different ones, the highest number, and (up to a hundred) those below it that
did not.
"""

import json
import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator

PORT = 4322
NUMBER = struct.Struct("!I")
PAUSE = 0.01
"Seconds between looks at the clock, or at the queue: to switch between processes is what costs under emulation."
HASTE = 1.5
"Times the rate at which a sender that was kept waiting catches up: many at once would overflow queues."
READY = "ready"
SO_RCVBUFFORCE = 33
ended = False


def end(*_: object) -> None:
    global ended
    ended = True


def udp_socket(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


def receive(address: str) -> None:
    counts: Counter[int] = Counter()
    with udp_socket(address) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        receiver.bind((address, PORT))
        receiver.setblocking(False)
        print(READY, flush=True)
        while not ended:
            time.sleep(PAUSE)
            counts.update(NUMBER.unpack_from(datagram)[0] for datagram in waiting(receiver))
    highest = max(counts, default=-1)
    print(json.dumps({"received": sum(counts.values()), "different": len(counts), "highest": highest,
                      "missing": [number for number in range(highest) if number not in counts][:100]}))


def waiting(receiver: socket.socket) -> Iterator[bytes]:
    try:
        while True:
            yield receiver.recv(2048)
    except BlockingIOError:
        return


def send(source: str, destination: str, rate: int, octets: int) -> None:
    number, due, rest = 0, 0, bytes(octets - NUMBER.size)
    at_once = round(HASTE * rate * PAUSE)
    with udp_socket(source) as sender:
        sender.bind((source, 0))
        sender.connect((destination, PORT))
        begun = time.monotonic()
        while number < due or not ended:
            if not ended:
                due = int((time.monotonic() - begun) * rate)
            for each in range(number, min(due, number + at_once)):
                sender.send(NUMBER.pack(each) + rest)
                number = each + 1
            time.sleep(PAUSE)
    print(json.dumps({"sent": number, "seconds": time.monotonic() - begun}))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    if sys.argv[1] == "receive":
        receive(sys.argv[2])
    else:
        send(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
