"""A stream of numbered datagrams, and who counts them: processes for hosts of the lab, until they get SIGTERM.

    python -m tests.lab.stream receive ADDRESS
    python -m tests.lab.stream send SOURCE DESTINATION RATE OCTETS

RATE a second, OCTETS behind the UDP header. In the end each prints a line of JSON: how many were sent in how many
seconds; how many came, how many different ones, the highest number, and (up to a hundred) those below it that did not.
"""

import json
import signal
import socket
import struct
import sys
import time

PORT = 4322
NUMBER = struct.Struct("!I")
CATCH_UP = 20
"Datagrams sent at once after a delay: many more would overflow queues that are not ours."
PAUSE = 0.002
READY = "ready"
SO_RCVBUFFORCE = 33
ended = False


def end(*_: object) -> None:
    global ended
    ended = True


def receive(address: str) -> None:
    counts: dict[int, int] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        receiver.bind((address, PORT))
        receiver.settimeout(0.2)
        print(READY, flush=True)
        while not ended:
            try:
                number, = NUMBER.unpack_from(receiver.recv(2048))
            except TimeoutError:
                continue
            counts[number] = counts.get(number, 0) + 1
    highest = max(counts, default=-1)
    print(json.dumps({"received": sum(counts.values()), "different": len(counts), "highest": highest,
                      "missing": [number for number in range(highest) if number not in counts][:100]}))


def send(source: str, destination: str, rate: int, octets: int) -> None:
    number, rest = 0, bytes(octets - NUMBER.size)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        sender.connect((destination, PORT))
        begun = last = time.monotonic()
        credit = 0.0
        while not ended:
            now = time.monotonic()
            credit, last = min(CATCH_UP, credit + (now - last) * rate), now
            while credit >= 1:
                sender.send(NUMBER.pack(number) + rest)
                number, credit = number + 1, credit - 1
            time.sleep(PAUSE)
    print(json.dumps({"sent": number, "seconds": time.monotonic() - begun}))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    if sys.argv[1] == "receive":
        receive(sys.argv[2])
    else:
        send(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
