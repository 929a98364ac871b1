"""Secrets at rest: sealed with Fernet (AES-128-CBC and HMAC-SHA256) under the operator's key."""

from cryptography.fernet import Fernet, InvalidToken

from cope.core.errors import Misconfigured


class Sealer:
    """Seals and opens short secrets. Raises `Misconfigured` for a key that is not one, or is not the one used."""

    def __init__(self, secret_key: str) -> None:
        try:
            self._fernet = Fernet(secret_key)
        except (ValueError, TypeError):
            raise Misconfigured("COPE_SECRET_KEY must be 32 bytes in URL-safe base64 (a Fernet key)") from None

    def seal(self, secret: str) -> str:
        """The sealed text; another one each time."""
        return self._fernet.encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """The inverse of `seal`."""
        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            raise Misconfigured("COPE_SECRET_KEY is not the key that the stored secrets were sealed with") from None
