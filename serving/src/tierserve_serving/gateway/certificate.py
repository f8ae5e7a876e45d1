"""Expiry of the gateway's certificate, from the file that HAProxy serves."""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger("tierserve.gateway")


class Certificate:
    """A PEM file with a certificate and those of its issuers; without the key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._error = ""

    def not_after(self) -> float | None:
        """Unix time at which the first certificate of the file expires; None if it cannot be read.

        An issuer that expires breaks clients as much as the certificate itself.
        """
        from cryptography import x509  # only gateways with TLS pay for the import

        try:
            chain = x509.load_pem_x509_certificates(self.path.read_bytes())
        except (OSError, ValueError) as error:
            if str(error) != self._error:  # one line, not one for each scrape
                log.warning("%s: no certificate can be read: %s", self.path, error)
            self._error = str(error)
            return None
        self._error = ""
        return min(one.not_valid_after_utc.timestamp() for one in chain)
