"""Keys for Wireshark, so that a capture of our own traffic can be read: off, but for a time that an administrator says.

Point WIRESHARK_CONFIG_DIR at the directory, or copy the files into a profile of Wireshark's.
"""

import os
from pathlib import Path

from twisted.logger import Logger

from oesvc.ike import events as ike
from oesvc.interfaces import Clock, DelayedCall, KeyingEngine
from oesvc.ipsec.sa import Encryption, Integrity, IpsecSa

IKE_KEYS, ESP_KEYS = "ikev1_decryption_table", "esp_sa"
"The names that Wireshark gives these files."
PREFERENCES = "preferences"
DECRYPT_ESP = "esp.enable_encryption_decode: TRUE\nesp.enable_authentication_check: TRUE\n"
"Wireshark does neither unasked."
LONGEST = 24 * 3600
"Seconds."
MODE = 0o600

CIPHERS = {Encryption.DES3_CBC: "TripleDES-CBC [RFC2451]", Encryption.AES_CBC: "AES-CBC [RFC3602]",
           Encryption.AES_GCM_16: "AES-GCM with 16 octet ICV [RFC4106]"}
INTEGRITY = {
    None: "NULL",
    Integrity.HMAC_MD5_96: "HMAC-MD5-96 [RFC2403]",
    Integrity.HMAC_SHA1_96: "HMAC-SHA-1-96 [RFC2404]",
    Integrity.HMAC_SHA2_256_128: "HMAC-SHA-256-128 [RFC4868]",
    Integrity.HMAC_SHA2_384_192: "HMAC-SHA-384-192 [RFC4868]",
    Integrity.HMAC_SHA2_512_256: "HMAC-SHA-512-256 [RFC4868]",
}
"As Wireshark calls them."


class KeyLog:
    """Writes the keys of what is negotiated from now on; the caller's switch, and a timer, end it."""

    log = Logger()

    def __init__(self, engine: KeyingEngine, clock: Clock, directory: Path) -> None:
        self.directory = directory
        self._engine, self._clock = engine, clock
        self._ends: DelayedCall | None = None

    @property
    def on(self) -> bool:
        return self._ends is not None

    def start(self, seconds: float) -> None:
        """Begin anew, with empty files. Raises OSError where they cannot be written, ValueError for an absurd time."""
        if not 0 < seconds <= LONGEST:
            raise ValueError(f"{seconds:g} seconds; more than 0 and at most {LONGEST} are allowed")
        self.stop()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in ((IKE_KEYS, ""), (ESP_KEYS, ""), (PREFERENCES, DECRYPT_ESP)):
            (self.directory / name).unlink(missing_ok=True)
            self._append(name, text)
        self._ends = self._clock.callLater(seconds, self._over)
        self.log.warn("keys are written to {directory} for {seconds} s", directory=self.directory, seconds=seconds)

    def stop(self) -> None:
        """Write no more. The files stay, for the capture to be read."""
        if self._ends is not None:
            if self._ends.active():
                self._ends.cancel()
            self._ends = None
            self.log.warn("keys are written to {directory} no more", directory=self.directory)

    def heard(self, event: ike.IkeEvent) -> None:
        """An event of the engine's: there may be new keys."""
        if not self.on:
            return
        try:
            if isinstance(event, ike.ChannelUp):
                cookie, key = self._engine.channel_key(event.channel)
                if cookie:  # it may have been replaced already
                    self._append(IKE_KEYS, f"{cookie.hex()},{key.hex()}\n")
            elif isinstance(event, ike.SasReady):
                self._append(ESP_KEYS, "".join(map(esp_line, event.sas)))
        except OSError as error:
            self.log.error("the keys cannot be written: {error}", error=error)
            self.stop()

    def _over(self) -> None:
        self.stop()

    def _append(self, name: str, text: str) -> None:
        opened = os.open(self.directory / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, MODE)
        with os.fdopen(opened, "a") as file:
            file.write(text)


def esp_line(sa: IpsecSa) -> str:
    """An SA as a line of Wireshark's table."""
    integrity = f"0x{sa.integrity_key.hex()}" if sa.transform.integrity else ""
    cells = (f"IPv{sa.source.version}", str(sa.source), str(sa.destination), f"0x{sa.spi:08x}",
             CIPHERS[sa.transform.encryption], f"0x{sa.encryption_key.hex()}", INTEGRITY[sa.transform.integrity],
             integrity)
    return ",".join(f'"{cell}"' for cell in cells) + "\n"
