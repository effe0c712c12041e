"""A Sigstore instance in small, in a thread of the test: certificate authority (Fulcio), its log of certificates, log
of signatures (Rekor, version 1) and identity provider, as far as the real client speaks with them.

Forms: https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md (certificates), RFC 6962 (signed certificate
timestamps, Merkle leaves), https://github.com/transparency-dev/formats/blob/main/log/README.md (checkpoints),
https://github.com/sigstore/protobuf-specs (the trust configuration).
"""

import base64
import hashlib
import json
import struct
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import jwt
import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ISSUER = "https://accounts.example"
SECRET = "the identity provider signs its tokens with this secret"
ISSUER_OID, ISSUER_V2_OID = (x509.ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{number}") for number in (1, 8))
TIMESTAMPS_OID = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
PATHS = {"/api/v2/signingCert": "certify", "/api/v1/log/entries": "log"}


def token(identity, issuer=ISSUER, seconds=600, **claims):
    """What the identity provider gives somebody who has signed in."""
    now = int(time.time())
    stated = {"iss": issuer, "sub": identity, "aud": "sigstore", "iat": now - 3600, "exp": now + seconds}
    return jwt.encode(stated | claims, SECRET, algorithm="HS256")


def b64(data):
    return base64.b64encode(data).decode()


def der(key):
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_id(key):
    return hashlib.sha256(der(key)).digest()


def hash_of(data):
    return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}


def sign(key, data):
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


class Instance:
    """A running instance: `url`, and what `trust_config` says of it.

    `log_delay` are seconds by which the log's clock is ahead, `status` the HTTP status of refused requests by path;
    `token` is given to who signs in with a browser, and to jobs that ask as those of GitHub Actions do.
    """

    def __init__(self):
        self.authority, self.certificates, self.log_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        self.log_delay, self.status, self.token = 0, {}, ""
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
        self.root = self._root()
        instance = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked = parse_qs(urlsplit(self.path).query)
                if "redirect_uri" in asked:
                    self.send_response(302)
                    self.send_header("Location", f"{asked['redirect_uri'][0]}?code=1&state={asked['state'][0]}")
                    return self.end_headers()
                paths = {name: f"{instance.url}/{name}" for name in ("authorization_endpoint", "token_endpoint")}
                return self.answer(200, paths | {"value": instance.token})

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/token_endpoint":
                    return self.answer(200, {"access_token": instance.token})
                if self.path in instance.status:
                    return self.answer(instance.status[self.path], {"message": "refused"})
                answer = getattr(instance, PATHS[self.path])(json.loads(body), self.headers.get("Authorization", ""))
                return self.answer(201, answer)

            def answer(self, status, value):
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        """From here on nothing answers."""
        self.server.shutdown()
        self.server.server_close()

    def _builder(self, subject, key, minutes):
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key)
            .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(seconds=minutes * 6))
            .not_valid_after(now + timedelta(minutes=minutes))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key()), False)
        )  # fmt: skip

    def _usage(self, signs_certificates):
        others = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        return x509.KeyUsage(digital_signature=not signs_certificates, key_cert_sign=signs_certificates, **others)

    def _root(self):
        builder = self._builder(self.name, self.authority.public_key(), 24 * 60)
        for extension in (
            x509.BasicConstraints(ca=True, path_length=0), self._usage(signs_certificates=True),
            x509.SubjectKeyIdentifier.from_public_key(self.authority.public_key()),
        ):  # fmt: skip
            builder = builder.add_extension(extension, not isinstance(extension, x509.SubjectKeyIdentifier))
        return builder.sign(self.authority, hashes.SHA256())

    def certify(self, request, authorization):
        """A certificate of ten minutes for whom the token names, with the log's promise to show it."""
        claims = jwt.decode(authorization.removeprefix("Bearer "), SECRET, algorithms=["HS256"], audience="sigstore")
        asked = x509.load_pem_x509_csr(base64.b64decode(request["certificateSigningRequest"]))
        workflow = claims.get("job_workflow_ref")
        who = x509.UniformResourceIdentifier(f"https://github.com/{workflow}") if workflow else None
        issuer = claims["iss"].encode()
        builder = self._builder(x509.Name([]), asked.public_key(), 10)
        for extension, critical in (
            (self._usage(signs_certificates=False), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False),
            (x509.SubjectAlternativeName([who or x509.RFC822Name(claims["sub"])]), True),
            (x509.UnrecognizedExtension(ISSUER_OID, issuer), False),
            (x509.UnrecognizedExtension(ISSUER_V2_OID, b"\x0c" + bytes([len(issuer)]) + issuer), False),
        ):
            builder = builder.add_extension(extension, critical)
        promised = self._promise(builder.sign(self.authority, hashes.SHA256()).tbs_certificate_bytes)
        builder = builder.add_extension(x509.UnrecognizedExtension(TIMESTAMPS_OID, promised), False)
        chain = [builder.sign(self.authority, hashes.SHA256()), self.root]
        pems = [certificate.public_bytes(Encoding.PEM).decode() for certificate in chain]
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": pems}}}

    def _promise(self, certificate):
        """The list of one signed certificate timestamp (RFC 6962, section 3.2 and 3.3), as an octet string."""
        milliseconds = struct.pack(">Q", int(time.time() * 1000))
        length = len(certificate).to_bytes(3, "big")
        signed = b"\0\0" + milliseconds + b"\0\1" + key_id(self.authority) + length + certificate + b"\0\0"
        signature = sign(self.certificates, signed)
        timestamp = b"\0" + key_id(self.certificates) + milliseconds + b"\0\0" + b"\4\3"
        timestamp += struct.pack(">H", len(signature)) + signature
        listed = struct.pack(">HH", len(timestamp) + 2, len(timestamp)) + timestamp
        # Some 120 bytes: DER writes a length below 128 in one byte.
        assert len(listed) < 128
        return b"\4" + bytes([len(listed)]) + listed

    def log(self, proposed, _):
        """An entry of a log that has no other."""
        content = proposed["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        body = rfc8785.dumps({
            "apiVersion": "0.0.1", "kind": "dsse",
            "spec": {
                "envelopeHash": hash_of(content["envelope"].encode()),
                "payloadHash": hash_of(base64.b64decode(envelope["payload"])),
                "signatures": [{"signature": envelope["signatures"][0]["sig"], "verifier": content["verifiers"][0]}],
            },
        })  # fmt: skip
        root, log_id = hashlib.sha256(b"\0" + body).digest(), key_id(self.log_key)
        entry = {
            "body": b64(body),
            "integratedTime": int(time.time()) + self.log_delay,
            "logID": log_id.hex(),
            "logIndex": 0,
        }
        note = f"log of the tests\n1\n{b64(root)}\n"
        checkpoint = f"{note}\n\u2014 log {b64(log_id[:4] + sign(self.log_key, note.encode()))}\n"
        proof = {"checkpoint": checkpoint, "hashes": [], "logIndex": 0, "rootHash": root.hex(), "treeSize": 1}
        promise = b64(sign(self.log_key, rfc8785.dumps(entry)))
        return {"1" * 64: entry | {"verification": {"inclusionProof": proof, "signedEntryTimestamp": promise}}}

    def trust_config(self, path):
        """Writes what clients are told of this instance to `path`, in Sigstore's form."""
        since = {"start": "2020-01-01T00:00:00Z"}

        def log(key):
            public = {"rawBytes": b64(der(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": since}
            return {
                "baseUrl": self.url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": public,
                "logId": {"keyId": b64(key_id(key))},
            }

        service = [{"url": self.url, "majorApiVersion": 1, "validFor": since, "operator": "tests"}]
        chain = {"certificates": [{"rawBytes": b64(self.root.public_bytes(Encoding.DER))}]}
        media = "application/vnd.dev.sigstore."
        path.write_text(json.dumps({
            "mediaType": f"{media}clienttrustconfig.v0.1+json",
            "trustedRoot": {
                "mediaType": f"{media}trustedroot+json;version=0.1",
                "tlogs": [log(self.log_key)], "ctlogs": [log(self.certificates)], "timestampAuthorities": [],
                "certificateAuthorities": [{
                    "subject": {"organization": "tests", "commonName": "tests"}, "uri": self.url,
                    "certChain": chain, "validFor": since,
                }],
            },
            "signingConfig": {
                "mediaType": f"{media}signingconfig.v0.2+json", "caUrls": service, "oidcUrls": service,
                "rekorTlogUrls": service, "rekorTlogConfig": {"selector": "ANY"}, "tsaUrls": [],
                "tsaConfig": {"selector": "ANY"},
            },
        }))  # fmt: skip
        return path
