"""`python3 -m tests.lab.prepare`: what the lab needs and an emulated kernel would be slow to make, made beforehand.

The gateways' keys (for libreswan too) and the signed zones are kept in .cache, which that kernel sees read-only.
"""

from tests.lab.keys import GATEWAYS, private_key_file
from tests.lab.names import canonical_tree
from tests.lab.peers.files import LIBRESWAN, make_key_database

STRONG = 4096
"Bits of the keys of test_small_path.py."

if __name__ == "__main__":
    for gateway in GATEWAYS:
        private_key_file(gateway)
        private_key_file(gateway, STRONG)
        if LIBRESWAN.exists():
            make_key_database(gateway)
    canonical_tree()
    canonical_tree(STRONG)
