"""`python3 -m tests.lab.prepare`: what the lab needs and an emulated kernel would be slow to make, made beforehand.

The gateways' keys (for libreswan too) and the signed zones are kept in .cache, which that kernel sees read-only.
"""

from tests.lab.keys import GATEWAYS, private_key_file
from tests.lab.names import canonical_tree
from tests.lab.peers.files import LIBRESWAN, make_key_database

if __name__ == "__main__":
    for gateway in GATEWAYS:
        private_key_file(gateway)
        if LIBRESWAN.exists():
            make_key_database(gateway)
    canonical_tree()
