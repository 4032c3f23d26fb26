"""A small OpenID Connect provider on loopback, for the tests: discovery, sign-in, tokens with PKCE, keys."""

import base64
import hashlib
import hmac
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwk, jwt

CLIENT, CLIENT_SECRET = "candlelake", "canary-oidc-secret"


class Issuer:
    """What the provider knows and does; `claims` changes what its tokens say, `document` its discovery."""

    def __init__(self, key=None):
        self.key = key or jwk.RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
        self.signing = self.key
        self.sign = self.signed
        self.person = {"sub": "person-1", "email": "ann@example.org", "email_verified": True}
        self.claims, self.document, self.broken = {}, {}, None
        self.codes, self.now, self.url = {}, 0, ""

    def discovery(self):
        """Return the discovery document."""
        return {"issuer": self.url, "authorization_endpoint": f"{self.url}/authorize", "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys", **self.document}

    def authorize(self, address):
        """Do what a person at the provider's page does: agree; returns the address that they are sent back to."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def token(self, form, authorization):
        """Return status and answer to a code."""
        asked = self.codes.pop(form.get("code"), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
        basic = "Basic " + base64.b64encode(f"{CLIENT}:{CLIENT_SECRET}".encode()).decode()
        if (asked is None or challenge != asked["code_challenge"] or form["redirect_uri"] != asked["redirect_uri"]
                or authorization != basic):
            return 400, {"error": "invalid_grant"}
        claims = {"iss": self.url, "aud": asked["client_id"], "iat": self.now, "exp": self.now + 300, "nonce": asked["nonce"],
                  **self.person, **self.claims}
        return 200, {"access_token": "x", "token_type": "Bearer", "id_token": self.sign(claims)}

    def signed(self, claims):
        """Return a token as an honest provider signs it."""
        return jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.signing)

    def signed_by_public_key(self, claims):
        """Return a token whose secret is the provider's public key: what a careless check takes for RS256."""
        parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "HS256", "kid": "one"}, claims)]
        mark = hmac.new(self.key.as_pem(private=False), b".".join(parts), hashlib.sha256).digest()
        return b".".join([*parts, base64.urlsafe_b64encode(mark).rstrip(b"=")]).decode()

    def unsigned(self, claims):
        """Return a token that says it needs no signature."""
        parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "none"}, claims)]
        return b".".join([*parts, b""]).decode()


@contextmanager
def running_issuer():
    """Serve an issuer on a free port."""
    issuer = Issuer()

    class Desk(BaseHTTPRequestHandler):
        def do_GET(self):
            found = {"/.well-known/openid-configuration": issuer.discovery,
                     "/keys": lambda: {"keys": [issuer.key.as_dict(private=False)]}}.get(self.path)
            self.answer(200 if found else 404, found() if found else {})

        def do_POST(self):
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            self.answer(*issuer.token({name: values[0] for name, values in form.items()}, self.headers["authorization"]))

        def answer(self, status, value):
            if issuer.broken is not None:
                status, body = issuer.broken
            else:
                body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Desk)
    issuer.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
