"""TLS between the provider and Vault: who Vault is, and who asks, is proved with the files that configuration names."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from lictor.ca.provider import ProviderError
from tests.ca.vault_standin import ROOT_TOKEN, VaultStandin
from tests.ca.vaults import Vault
from tests.rpc.certificates import authority


async def test_tls_proves_who_vault_is_and_who_asks(tmp_path: Path) -> None:
    own = authority(tmp_path / "ca")
    served = own.settings("-server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=own.ca_file)
    context.load_cert_chain(served.cert_file, served.key_file)
    context.verify_mode = ssl.CERT_REQUIRED
    client = own.settings("-client")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "readme").write_text("the authorities of our Vault")
    (tmp_path / "folder" / "own.pem").write_bytes(own.certificate)
    certificate: dict[str, Any] = {"CertFile": client.cert_file, "KeyFile": client.key_file}
    with VaultStandin(tls=context) as standin:
        vault = Vault(standin.address, ROOT_TOKEN)
        accepted: list[dict[str, Any]] = [
            {"CAFile": own.ca_file, "TLSServerName": "localhost"},
            {"CAPath": str(tmp_path / "folder"), "TLSServerName": "localhost"},
            {"CAFile": own.ca_file},
            {"TLSSkipVerify": True},
        ]
        for trusted in accepted:
            provider = vault.provider(**trusted, **certificate)
            assert (await provider.open()).root
            await provider.close(remove=False)
        refused: list[tuple[dict[str, Any], str]] = [
            (certificate, "does not prove who it is .*check CAFile or CAPath"),
            ({"CAFile": own.ca_file, "TLSServerName": "other.example"} | certificate, "does not prove who it is"),
            ({"CAFile": own.ca_file}, "cannot be reached|does not prove"),
            ({"CAFile": str(tmp_path / "none")}, "CAFile of the Vault CA cannot be used: no such file"),
            ({"CAPath": str(tmp_path / "none")}, "CAPath of the Vault CA cannot be used: no such file"),
            ({"CAFile": own.ca_file, "CertFile": client.cert_file, "KeyFile": own.ca_file}, "CertFile and KeyFile"),
        ]
        for wrong, words in refused:
            provider = vault.provider(**wrong)
            with pytest.raises(ProviderError, match=words):
                await provider.open()
            await provider.close(remove=False)
