"""The vault: what it seals opens again for the same tenant and column, and for nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from payments_service import vault as module
from payments_service.vault import CannotOpen, CannotSeal, Reason, Vault

SECRET = "canary-current-7Qm2Xk9Vt4Rb8Wz1Lp6Nc3Hd5Gf0"
OLD_SECRET = "canary-previous-3Jd8Ys5Uw2Ea7Tq9Mb4Kx1Vz6"
OTHER_SECRET = "canary-other-9Pf4Hn1Lr6Gc8Sk2Zt7Bw3Dv5Xj0"
TENANT = UUID("11111111-1111-4111-8111-111111111111")
STRANGER = UUID("22222222-2222-4222-8222-222222222222")
COLUMN = "paynow_integration_key_enc"
PLAINTEXT = "canary-plaintext-5f0c"

VAULT = Vault(SECRET)


def seal(plaintext: str = PLAINTEXT, vault: Vault = VAULT) -> str:
    return vault.seal(plaintext, client_id=TENANT, column=COLUMN)


def open_(sealed: str, vault: Vault = VAULT, client_id: UUID = TENANT, column: str = COLUMN) -> str:
    return vault.open(sealed, client_id=client_id, column=column)


def refusal(sealed: str, vault: Vault = VAULT, client_id: UUID = TENANT, column: str = COLUMN) -> CannotOpen:
    with pytest.raises(CannotOpen) as caught:
        open_(sealed, vault, client_id, column)
    return caught.value


def old_encrypt(plaintext: str, secret: str) -> str:
    """The old backend's encrypt(), line by line, apart from where its secret comes from."""
    key = hashlib.sha256(secret.encode("utf-8")).digest()
    nonce = os.urandom(12)
    aesgcm = AESGCM(key)
    ct = aesgcm.encrypt(nonce, plaintext.encode("utf-8"), None)
    return base64.b64encode(nonce + ct).decode("utf-8")


def with_key_of(sealed: str, blob: bytes) -> str:
    """The sealed text with another body in its one right spelling."""
    version, key_id, _ = sealed.split(".")
    return f"{version}.{key_id}.{base64.urlsafe_b64encode(blob).rstrip(b'=').decode()}"


def body_of(sealed: str) -> bytes:
    text = sealed.rsplit(".", 1)[1]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# --- the present form ---------------------------------------------------------------------------------------------


@given(plaintext=st.text(), column=st.text(max_size=20), client_id=st.uuids())
def test_any_text_comes_back(plaintext: str, column: str, client_id: UUID) -> None:
    """Whatever Unicode text is sealed opens to itself for its own tenant and column."""
    sealed = VAULT.seal(plaintext, client_id=client_id, column=column)
    assert VAULT.open(sealed, client_id=client_id, column=column) == plaintext


def test_stored_form_carries_version_and_key_id() -> None:
    """The stored text is v1, the current key's id, and base64url of 96-bit nonce, ciphertext and 128-bit tag."""
    version, key_id, _ = (sealed := seal()).split(".")
    assert (version, key_id) == ("v1", VAULT.current_key_id)
    assert len(body_of(sealed)) == 12 + len(PLAINTEXT) + 16
    assert PLAINTEXT not in sealed


def test_a_stored_text_of_the_first_release_still_opens() -> None:
    """A text sealed when the form was made opens for ever: derivation, AAD and spelling cannot change unnoticed."""
    sealed = "v1.0c143b5d3f76.nZiQTIY4fNvlQbsz-32gmy3od3BvTsKj3xSGKEVH76INOFTb4ZjP-v6BKW5qId4RLg"
    assert VAULT.current_key_id == "0c143b5d3f76"
    assert open_(sealed) == PLAINTEXT


def test_the_aad_is_what_the_docstring_says() -> None:
    """Version, key id, table, tenant and column are authenticated, and the key is HKDF's, not the old SHA-256."""
    sealed = seal()
    info = b"conva-payments/vault/v1/aes-256-gcm"
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(SECRET.encode())
    aad = f"v1|{VAULT.current_key_id}|payment_settings|{TENANT.hex}|{COLUMN}".encode()
    blob = body_of(sealed)
    assert AESGCM(key).decrypt(blob[:12], blob[12:], aad) == PLAINTEXT.encode()


def test_two_seals_of_the_same_text_differ() -> None:
    """Every seal takes a fresh nonce: equal credentials cannot be told from the stored texts."""
    sealed = {seal() for _ in range(200)}
    assert len(sealed) == 200
    assert len({body_of(text)[:12] for text in sealed}) == 200


def test_text_that_is_not_unicode_is_refused_without_being_quoted() -> None:
    """A lone surrogate cannot be sealed, and neither the error nor what it hangs on carries the text."""
    with pytest.raises(CannotSeal) as caught:
        seal(PLAINTEXT + "\ud800")
    assert caught.value.__context__ is None
    assert PLAINTEXT not in repr(caught.value)


# --- tampering and moving -----------------------------------------------------------------------------------------


def test_every_changed_character_is_noticed() -> None:
    """No character of the stored text can be changed, not even to another spelling of the same bytes."""
    for plaintext in ("", "a", "ab", "abc", PLAINTEXT):
        sealed = seal(plaintext)
        for place, character in enumerate(sealed):
            for other in {"A", "B", "0", "1", "_", "+", ".", " ", "\n", chr(ord(character) ^ 1)} - {character}:
                refusal(sealed[:place] + other + sealed[place + 1 :])


def test_every_changed_bit_of_the_body_is_damage() -> None:
    """Nonce, ciphertext and tag are covered bit by bit."""
    sealed = seal()
    blob = body_of(sealed)
    for place in range(len(blob)):
        for bit in range(8):
            changed = bytearray(blob)
            changed[place] ^= 1 << bit
            assert refusal(with_key_of(sealed, bytes(changed))).reason is Reason.DAMAGED_OR_MOVED


def test_every_cut_and_every_addition_is_noticed() -> None:
    """A truncated or lengthened text never opens."""
    sealed = seal()
    for length in range(len(sealed)):
        refusal(sealed[:length])
    for addition in ("A", "=", "==", "\n", " ", ".", ".A"):
        refusal(sealed + addition)
        refusal(addition + sealed)


@given(text=st.text())
def test_no_text_at_all_gives_anything_but_a_refusal(text: str) -> None:
    """Whatever stands in the column, the only error is CannotOpen."""
    for candidate in (text, f"v1.{text}", f"v1.{VAULT.current_key_id}.{text}"):
        refusal(candidate)
        VAULT.key_id_of(candidate)


def test_another_tenants_row_or_another_column_does_not_open() -> None:
    """A sealed text is bound to its tenant and its column."""
    sealed = seal()
    assert refusal(sealed, client_id=STRANGER).reason is Reason.DAMAGED_OR_MOVED
    assert refusal(sealed, column="stripe_secret_key_enc").reason is Reason.DAMAGED_OR_MOVED


@given(
    one=st.tuples(st.sampled_from([TENANT, STRANGER]), st.text("ab|.1", max_size=4)),
    other=st.tuples(st.sampled_from([TENANT, STRANGER]), st.text("ab|.1", max_size=4)),
)
def test_only_the_very_same_place_opens(one: tuple[UUID, str], other: tuple[UUID, str]) -> None:
    """No two places share what is authenticated, however their names are put together."""
    sealed = VAULT.seal(PLAINTEXT, client_id=one[0], column=one[1])
    if one == other:
        assert open_(sealed, client_id=other[0], column=other[1]) == PLAINTEXT
    else:
        refusal(sealed, client_id=other[0], column=other[1])


def test_the_key_id_is_authenticated() -> None:
    """A text relabelled with the id of another known key does not open."""
    vault = Vault(SECRET, [OLD_SECRET])
    _, _, body = seal(vault=vault).split(".")
    assert refusal(f"v1.{vault.known_key_ids[1]}.{body}", vault).reason is Reason.DAMAGED_OR_MOVED


MALFORMED = (
    "", "v1", "v1.", "v1..", "v1.{id}.", "v1.{id}.***", "v1.{id}.é", "v1.{id}.{body}=", "v1.{ID}.{body}",
    "v2.{id}.{body}", "V1.{id}.{body}", "{id}.{body}", "AAAA", "not base64", "====", "é", "A" * 36 + "=",
)  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_texts_are_called_so(text: str) -> None:
    """What is in neither form is malformed, not damaged: nothing was tried on it."""
    _, key_id, body = seal().split(".")
    assert refusal(text.format(id=key_id, ID=key_id.upper(), body=body)).reason is Reason.MALFORMED


def test_reasons_are_stable_words() -> None:
    """rotate-keys and the logs count by these words: they do not change with the code."""
    assert [reason.value for reason in Reason] == ["unknown_key", "damaged_or_moved", "malformed"]


# --- rotation -----------------------------------------------------------------------------------------------------


def test_a_text_under_a_previous_secret_opens_and_is_rewrapped() -> None:
    """After a rotation old texts open, are seen to be old, and are rewritten once under the new key."""
    sealed = seal(vault=Vault(OLD_SECRET))
    vault = Vault(SECRET, [OTHER_SECRET, OLD_SECRET])
    assert open_(sealed, vault) == PLAINTEXT
    assert not vault.is_current(sealed)
    rewrapped = vault.rewrap(sealed, client_id=TENANT, column=COLUMN)
    assert rewrapped is not None
    assert vault.is_current(rewrapped)
    assert open_(rewrapped, Vault(SECRET)) == PLAINTEXT
    assert vault.rewrap(rewrapped, client_id=TENANT, column=COLUMN) is None


def test_a_rewrap_does_not_move_a_text() -> None:
    """A text that was copied to another tenant is refused by rotation too, not blessed by it."""
    sealed = seal(vault=Vault(OLD_SECRET))
    with pytest.raises(CannotOpen):
        Vault(SECRET, [OLD_SECRET]).rewrap(sealed, client_id=STRANGER, column=COLUMN)


def test_a_dropped_secret_is_named_by_its_key_id() -> None:
    """Without its secret a text is refused as of an unknown key, with the id that tells which one is missing."""
    gone = Vault(OLD_SECRET)
    error = refusal(seal(vault=gone))
    assert error.reason is Reason.UNKNOWN_KEY
    assert gone.current_key_id in str(error)


def test_key_ids_are_listed_current_first_and_once() -> None:
    """known_key_ids lists every secret once, also one given twice, and the ids depend on the secret alone."""
    vault = Vault(SECRET, [OLD_SECRET, SECRET, OLD_SECRET])
    assert vault.known_key_ids == (Vault(SECRET).current_key_id, Vault(OLD_SECRET).current_key_id)
    assert vault.current_key_id == vault.known_key_ids[0]


def test_key_id_of_tells_known_and_unknown_keys_and_none_for_the_old_form() -> None:
    """rotate-keys can count the rows per key without opening any."""
    assert VAULT.key_id_of(seal()) == VAULT.current_key_id
    assert VAULT.key_id_of(seal(vault=Vault(OLD_SECRET))) == Vault(OLD_SECRET).current_key_id
    assert VAULT.key_id_of(old_encrypt(PLAINTEXT, SECRET)) is None
    assert not VAULT.is_current(old_encrypt(PLAINTEXT, SECRET))


@pytest.mark.parametrize("secret", ["", "canary-\ud800"])
def test_an_unusable_secret_is_refused_without_being_quoted(secret: str) -> None:
    """An empty secret would seal with a key that everybody knows."""
    for current, previous in ((secret, []), (SECRET, [secret])):
        with pytest.raises(ValueError, match="empty or not valid Unicode") as caught:
            Vault(current, previous)
        assert "canary" not in repr(caught.value)
        assert caught.value.__context__ is None


# --- rows of the old backend --------------------------------------------------------------------------------------


@given(plaintext=st.text())
def test_old_rows_open_with_current_and_previous_secrets(plaintext: str) -> None:
    """What the old backend's own code encrypted opens, whichever of the known secrets it was."""
    vault = Vault(SECRET, [OTHER_SECRET, OLD_SECRET])
    for secret in (SECRET, OLD_SECRET):
        assert open_(old_encrypt(plaintext, secret), vault) == plaintext


def test_old_rows_are_rewritten_in_the_present_form() -> None:
    """A rewrap brings an old row into the present form, bound to its tenant and column from then on."""
    rewrapped = VAULT.rewrap(old_encrypt(PLAINTEXT, SECRET), client_id=TENANT, column=COLUMN)
    assert rewrapped is not None
    assert VAULT.is_current(rewrapped)
    assert open_(rewrapped) == PLAINTEXT
    refusal(rewrapped, client_id=STRANGER)


def test_an_old_row_with_white_space_around_it_opens() -> None:
    """The old backend's lenient base64 opened a row with a stray newline, so this one does."""
    assert open_(f" {old_encrypt(PLAINTEXT, SECRET)}\n") == PLAINTEXT


def test_every_changed_bit_of_an_old_row_is_noticed() -> None:
    """Old rows are authenticated too, except for where they stand."""
    blob = base64.b64decode(old_encrypt(PLAINTEXT, SECRET))
    for place in range(len(blob)):
        changed = bytearray(blob)
        changed[place] ^= 1
        assert refusal(base64.b64encode(changed).decode()).reason is Reason.DAMAGED_OR_MOVED


def test_an_old_row_of_an_unknown_secret_is_refused() -> None:
    """An old row names no key, so a missing secret and damage look the same: the message says both."""
    error = refusal(old_encrypt(PLAINTEXT, OTHER_SECRET))
    assert error.reason is Reason.DAMAGED_OR_MOVED
    assert "its secret is not configured" in str(error)


def test_an_old_row_that_holds_no_text_is_refused_without_being_quoted() -> None:
    """Bytes that are not UTF-8 are refused, and the codec's error, which carries them, is not kept."""
    nonce = os.urandom(12)
    ct = AESGCM(hashlib.sha256(SECRET.encode()).digest()).encrypt(nonce, b"canary\xff", None)
    error = refusal(base64.b64encode(nonce + ct).decode())
    assert error.reason is Reason.MALFORMED
    assert error.__context__ is None


# --- nothing leaks ------------------------------------------------------------------------------------------------


def _refusals() -> Iterator[tuple[str, CannotOpen]]:
    vault = Vault(SECRET, [OLD_SECRET])
    sealed, old = seal(vault=vault), old_encrypt(PLAINTEXT, OTHER_SECRET)
    yield sealed, refusal(sealed, vault, client_id=STRANGER)
    for text in (seal(vault=Vault(OTHER_SECRET)), old, sealed[:-1], sealed + "=", old[:-1], old[:12], sealed[3:]):
        yield text, refusal(text, vault)


def test_refusals_hold_nothing_of_secret_plaintext_or_ciphertext() -> None:
    """A refusal, and what it hangs on, carries neither a secret nor any eight characters of the stored body."""
    for sealed, error in _refusals():
        shown = str(error) + repr(error) + repr(vars(error))
        body = sealed.rsplit(".", 1)[-1]
        assert "canary" not in shown
        assert not any(body[at : at + 8] in shown for at in range(len(body) - 7))
        assert error.__cause__ is None
        assert error.__context__ is None


def test_the_vault_shows_key_ids_only() -> None:
    """Neither repr nor any attribute of the vault or of its keys holds a secret or a key in readable form."""
    vault = Vault(SECRET, [OLD_SECRET])
    assert repr(vault) == f"Vault(current={vault.current_key_id!r}, known={list(vault.known_key_ids)!r})"
    inside = repr([getattr(vault, name) for name in Vault.__slots__])
    for secret in (SECRET, OLD_SECRET):
        assert secret not in inside
        assert hashlib.sha256(secret.encode()).hexdigest()[:12] not in inside
    assert "AESGCM" not in inside


# --- Wycheproof: the project's own code path over published vectors -------------------------------------------------

Vector = dict[str, Any]


def wycheproof() -> Iterator[tuple[int, int, Vector]]:
    """(key bits, nonce bits, vector) of every vector of the file."""
    document = json.loads((Path(__file__).parent / "vectors" / "wycheproof_aes_gcm.json").read_text())
    for group in document["testGroups"]:
        assert group["tagSize"] == 128
        for vector in group["tests"]:
            raw = {name: bytes.fromhex(vector[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")}
            yield group["keySize"], group["ivSize"], {**vector, **raw}


def test_wycheproof_vectors_in_scope() -> None:
    """All 66 vectors with 256-bit keys and 96-bit nonces (39 valid, 27 invalid) through what seal and open use."""
    run = {"valid": 0, "invalid": 0}
    for key_bits, nonce_bits, v in wycheproof():
        if (key_bits, nonce_bits) != (256, 96):
            continue
        cipher, blob = module._cipher(v["key"]), v["iv"] + v["ct"] + v["tag"]
        if v["result"] == "valid":
            assert module._encrypt(cipher, v["iv"], v["msg"], v["aad"]) == blob, v["tcId"]
            assert module._decrypt(cipher, blob, v["aad"]) == v["msg"], v["tcId"]
        else:
            assert module._decrypt(cipher, blob, v["aad"]) is None, v["tcId"]
        run[v["result"]] += 1
    assert run == {"valid": 39, "invalid": 27}


def test_wycheproof_vectors_out_of_scope_are_refused() -> None:
    """The other 250, 211 with shorter keys and 39 with another nonce size, are refused one by one: none is skipped."""
    refused = {"key size": 0, "nonce size": 0}
    for key_bits, nonce_bits, v in wycheproof():
        if key_bits != 256:
            with pytest.raises(ValueError, match="not 256 bits"):
                module._cipher(v["key"])
            refused["key size"] += 1
        elif nonce_bits != 96:
            cipher = module._cipher(v["key"])
            with pytest.raises(ValueError, match="not 96 bits"):
                module._encrypt(cipher, v["iv"], v["msg"], v["aad"])
            # The stored form has no room for another nonce size: its first 96 bits are the nonce.
            assert module._decrypt(cipher, v["iv"] + v["ct"] + v["tag"], v["aad"]) is None, v["tcId"]
            refused["nonce size"] += 1
    assert refused == {"key size": 211, "nonce size": 39}


def test_seal_and_open_use_the_path_that_the_vectors_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    """seal, open and the old form go through `_cipher`, `_encrypt` and `_decrypt`, so the vectors speak for them."""
    used: list[str] = []

    def spy(name: str) -> Callable[..., Any]:
        """Notes the call and passes it on: nothing is replaced."""
        original = getattr(module, name)

        def call(*args: object) -> Any:
            used.append(name)
            return original(*args)

        return call

    for name in ("_cipher", "_encrypt", "_decrypt"):
        monkeypatch.setattr(module, name, spy(name))
    vault = Vault(SECRET)
    open_(seal(vault=vault), vault)
    open_(old_encrypt(PLAINTEXT, SECRET), vault)
    assert used == ["_cipher", "_cipher", "_encrypt", "_decrypt", "_decrypt"]
