"""What providers of datacenters that are not the primary one have in common: how an intermediate is judged that the
primary's authority has signed, and when another one is due. Pure.
"""

from lictor.ca import certificates
from lictor.ca.certificates import BadCertificate
from lictor.ca.provider import ProviderError, ProviderUnavailable
from lictor.model.spiffe import SigningId

RENEW_AT = 0.5  # of an intermediate's life


def share_of_life(pem: str, now: float) -> float:
    """How much of a certificate's life is over: 0 at its beginning, 1 at its end."""
    found = certificates.read_certificate(pem)
    return (now - found.not_before) / max(1.0, found.not_after - found.not_before)


def see_signed(signed: str, root: str, identity: SigningId, now: float) -> list[str]:
    """See that what the primary has signed is an intermediate of this mesh that leads to its root. Returns it, and what
    is between it and the root. Raises `ProviderError`.
    """
    if not root:
        raise ProviderUnavailable("the primary datacenter's root is not known yet")
    try:
        chain = certificates.chain_below(root, signed)
        found = certificates.read_certificate(chain[0])
    except BadCertificate as error:
        # It may just have got another root, of which this datacenter is about to hear.
        raise ProviderUnavailable(f"what the primary datacenter has signed is not under its root: {error}") from None
    if not found.is_authority or found.uris != (identity.uri,):
        raise ProviderError("the primary datacenter has signed a certificate that is no authority of this mesh")
    if found.not_after <= now:
        raise ProviderError("the primary datacenter has signed an intermediate that has ended: see its servers' clocks")
    return chain


def only_primary() -> ProviderError:
    """What an authority is told that is to do what the primary's does."""
    return ProviderError("only the authority of the primary datacenter signs other authorities")
