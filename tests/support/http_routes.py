"""Routes of the tests' server: how servers behave, well and badly.

Each function answers one path. What a test wants to vary comes in the query.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import time
import zlib
from datetime import datetime, timezone
from email.utils import formatdate
from typing import Any
from urllib.parse import urlencode

from tests.support.http_server import Exchange, Route


def ok(exchange: Exchange) -> None:
    exchange.reply({"path": exchange.path, "count": exchange.count})


def echo(exchange: Exchange) -> None:
    """What arrived, as JSON."""
    exchange.reply(
        {
            "method": exchange.method,
            "path": exchange.path,
            "query": exchange.raw_query,
            "headers": {name.lower(): value for name, value in exchange.headers.items()},
            "body": exchange.body.decode(),
        }
    )


def status(exchange: Exchange) -> None:
    """/status/404: always that status; `retry_after`, `body` and `type` may be given."""
    code = int(exchange.path.rpartition("/")[2])
    headers = _given(exchange, {"retry_after": "Retry-After", "type": "Content-Type"})
    exchange.reply(exchange.query.get("body", "").encode(), code, headers)


def flaky(exchange: Exchange) -> None:
    """`fails` answers of `status`, then it is well."""
    if exchange.count > exchange.number("fails", 2):
        exchange.reply({"count": exchange.count})
        return
    names = {
        "retry_after": "Retry-After",
        "remaining": "X-RateLimit-Remaining",
        "reset": "X-RateLimit-Reset",
        "ratelimit": "RateLimit",
    }
    headers = _given(exchange, names)
    if "retry_date" in exchange.query:
        headers["Retry-After"] = formatdate(
            time.time() + exchange.number("retry_date"), usegmt=True
        )
    exchange.reply({"error": "not now"}, int(exchange.number("status", 503)), headers)


def limited(exchange: Exchange) -> None:
    """429 with `Retry-After: 0` to every other request."""
    if exchange.count % 2:
        exchange.reply({}, 429, {"Retry-After": "0"})
    else:
        exchange.reply({"count": exchange.count})


def used_up(exchange: Exchange) -> None:
    """It is well, but the quota is used up for `reset` seconds."""
    names = {"reset": "X-RateLimit-Reset", "ratelimit": "RateLimit"}
    headers = _given(exchange, names)
    if "reset" in exchange.query:
        headers["X-RateLimit-Remaining"] = "0"
    exchange.reply({}, 200, headers)


def slow(exchange: Exchange) -> None:
    """Answers after `seconds`; until `times` requests came, if given."""
    if exchange.count <= exchange.number("times", 1e9):
        time.sleep(exchange.number("seconds", 0.05))
    exchange.reply({"count": exchange.count})


def drip(exchange: Exchange) -> None:
    """One byte every 10 ms, for ever: of the body, or of the headers with `headers=1`."""
    if "headers" in exchange.query:
        exchange.raw(b"HTTP/1.1 200 OK\r\nX-Long: ")
    else:
        exchange.raw(exchange.head(200, [("Content-Length", "1000000")]))
    while True:
        exchange.raw(b"x")
        exchange._handler.wfile.flush()
        time.sleep(0.01)


def cut(exchange: Exchange) -> None:
    """Closes in the middle, `times` times: `how` is length, chunked, gzip, head or nothing."""
    if exchange.count > exchange.number("times", 1e9):
        exchange.reply({"count": exchange.count})
        return
    how = exchange.query.get("how", "length")
    body = json.dumps(["x" * 1000]).encode()
    if how == "length":
        exchange.raw(exchange.head(200, [("Content-Length", str(len(body)))]) + body[:500])
    elif how == "chunked":
        head = exchange.head(200, [("Transfer-Encoding", "chunked")])
        exchange.raw(head + b"%x\r\n%b\r\n" % (500, body[:500]))
    elif how == "gzip":
        data = gzip.compress(json.dumps(list(range(5000))).encode())
        headers = [("Content-Length", str(len(data))), ("Content-Encoding", "gzip")]
        exchange.raw(exchange.head(200, headers) + data[: len(data) // 2])
    elif how == "head":
        exchange.raw(b"HTTP/1.1 200 OK\r\nContent-")
    exchange.cut()


def big(exchange: Exchange) -> None:
    """`bytes` zeros: announced, chunked with `chunked=1`, or until the end with `until_end=1`."""
    left = int(exchange.number("bytes"))
    if "chunked" in exchange.query:
        exchange.raw(exchange.head(200, [("Transfer-Encoding", "chunked")]))
    elif "until_end" in exchange.query:
        exchange.raw(exchange.head(200, [("Connection", "close")]))
    else:
        exchange.raw(exchange.head(200, [("Content-Length", str(left))]))
    while left > 0:
        piece = b"0" * min(left, 65536)
        left -= len(piece)
        whole = b"%x\r\n%b\r\n" % (len(piece), piece) if "chunked" in exchange.query else piece
        exchange.raw(whole)
    if "chunked" in exchange.query:
        exchange.raw(b"0\r\n\r\n")
    if "until_end" in exchange.query:
        exchange.cut()


def bomb(exchange: Exchange) -> None:
    """A small body that is `bytes` zeros when it is decompressed (`coding`: gzip or deflate)."""
    coding = exchange.query.get("coding", "gzip")
    press = zlib.compressobj(9, zlib.DEFLATED, 31 if coding == "gzip" else 15)
    block, left, data = b"0" * (1 << 20), int(exchange.number("bytes")), b""
    while left > 0:
        data += press.compress(block[:left])
        left -= len(block)
    exchange.reply(data + press.flush(), headers={"Content-Encoding": coding})


def packed(exchange: Exchange) -> None:
    """Compressed JSON of ordinary size; with `wrong=1` it is not compressed at all."""
    data = json.dumps({"text": "word " * 10_000}).encode()
    body = data if "wrong" in exchange.query else gzip.compress(data)
    exchange.reply(body, headers={"Content-Encoding": "gzip"}, kind="application/json")


def bad(exchange: Exchange) -> None:
    """/bad/html and so on: answers of 200 that are not the JSON they should be."""
    body, kind = BAD[exchange.path.rpartition("/")[2]]
    exchange.reply(body, kind=kind)


BAD: dict[str, tuple[bytes, str]] = {
    "html": (b"<!doctype html><title>Log in</title>", "text/html"),
    "truncated": (b'{"items": [{"id": 1}, {"id', "application/json"),
    "string": (b'{"items": "abc', "application/json"),
    "text": (b"Service is fine", "application/json"),
    "empty": (b"", "application/json"),
    "blank": (b" \n ", "application/json"),
    "latin1": ('{"name": "Jörg"}'.encode("latin-1"), "application/json"),
    "latin1-said": ('{"name": "Jörg"}'.encode("latin-1"), "application/json; charset=ISO-8859-1"),
    "unknown-charset": ('{"name": "Jörg"}'.encode("latin-1"), "text/plain; charset=klingon"),
    "utf16": ('{"name": "Jörg"}'.encode("utf-16"), "application/json"),
    "bom": (b"\xef\xbb\xbf" + '{"name": "Jörg"}'.encode(), "application/json; charset=utf-8"),
    "nan": (b'{"value": NaN}', "application/json"),
    "long": (b'{"id": 123456789012345678901234567890}', "application/json"),
    "deep": (b"[" * 100_000, "application/json"),
}


def redirect(exchange: Exchange) -> None:
    """To `to`, with `status`; `port` names another port of the server."""
    to = exchange.query.get("to", "/echo")
    if "port" in exchange.query:
        to = exchange.addresses[exchange.query["port"]] + to
    exchange.reply(b"", int(exchange.number("status", 302)), {"Location": to})


def circle(exchange: Exchange) -> None:
    exchange.reply(b"", 302, {"Location": "/circle"})


def links(exchange: Exchange) -> None:
    """A `Link` header as given."""
    exchange.reply({}, 200, {"Link": exchange.query["link"]})


def versioned(exchange: Exchange) -> None:
    """Has a version, set by PUT; answers 304 to who knows it (`by`: etag, date or none)."""
    with exchange.lock:
        if exchange.method == "PUT":
            exchange.memory["version"] = exchange.json()
        version = exchange.memory.get("version", 1)
    by = exchange.query.get("by", "etag")
    headers = _given(exchange, {"control": "Cache-Control", "vary": "Vary"})
    name, condition, value = {
        "etag": ("ETag", "If-None-Match", f'"v{version}"'),
        "date": ("Last-Modified", "If-Modified-Since", formatdate(1e9 + version, usegmt=True)),
        "none": ("X-None", "X-None", ""),
    }[by]
    headers[name] = value
    if by != "none" and exchange.headers.get(condition) == value:
        exchange.reply(b"", 304, headers)
        return
    who = exchange.headers.get("Authorization", exchange.query.get("key", "nobody"))
    exchange.reply(
        {"version": version, "for": hashlib.sha256(who.encode()).hexdigest()}, 200, headers
    )


def guarded(exchange: Exchange) -> None:
    """Asks for a credential: `name` in `where` (header, query, cookie) must be `value`.

    What it must be is told by a POST before, so that no test has it in an address.
    """
    with exchange.lock:
        if exchange.method == "POST":
            exchange.memory["guard"] = exchange.json()
            exchange.reply({})
            return
        guard = exchange.memory["guard"]
    if guard["where"] == "query":
        found = exchange.query.get(guard["name"])
    elif guard["where"] == "cookie":
        pairs = (one.partition("=") for one in exchange.headers.get("Cookie", "").split("; "))
        found = {name: value for name, _, value in pairs}.get(guard["name"])
    else:
        found = exchange.headers.get(guard["name"])
    if found == guard["value"]:
        exchange.reply({"count": exchange.count})
    else:
        # Careless servers repeat what they were given.
        exchange.reply({"error": f"{found} is not a key"}, int(guard.get("status", 401)))


def token_endpoint(exchange: Exchange) -> None:
    """An OAuth 2 token endpoint for the client `me` with the secret `client-s3cret`.

    The memory `oauth` holds how it behaves: `lifetime` of tokens, `rotate`, `scope`, and what it
    gave out. `refusals` are statuses of the next answers; a `strict` server revokes everything when
    it sees a refresh token a second time.
    """
    form = exchange.form()
    with exchange.lock:
        memory = exchange.memory.setdefault("oauth", {})
        given = exchange.headers.get("Authorization", "")
        pair = base64.b64decode(given.partition(" ")[2]).decode() if given else ""
        client, _, secret = pair.partition(":")
        client, secret = (
            client or form.get("client_id", ""),
            secret or form.get("client_secret", ""),
        )
        grant = form.get("grant_type", "").rpartition(":")[2]
        public = grant in ("authorization_code", "device_code", "refresh_token", "jwt-bearer")
        known = secret == "client-s3cret" or "client_assertion" in form or (public and not secret)
        if "delay" in memory:
            time.sleep(memory["delay"])
        if memory.get("refusals"):
            exchange.reply({"message": "busy"}, memory["refusals"].pop(0))
        elif memory.get("broken"):
            exchange.reply("<html>gateway</html>", 502, kind="text/html")
        elif not known or (
            client != "me" and "client_assertion" not in form and grant != "jwt-bearer"
        ):
            exchange.reply({"error": "invalid_client", "error_description": f"not {secret}"}, 401)
        else:
            error = _refused(grant, form, memory)
            if error is not None:
                exchange.reply({"error": error}, 400)
            else:
                exchange.reply(_issued(grant, memory))


def _refused(grant: str, form: dict[str, str], memory: dict[str, Any]) -> str | None:
    if grant == "refresh_token":
        good = memory.setdefault("refresh", "refresh-t0ken-0")
        if form.get("refresh_token") == good and not memory.get("revoked"):
            return None
        memory["revoked"] = bool(memory.get("strict"))
        return "invalid_grant"
    if grant == "authorization_code":
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        good = form.get("code") == "c0de-of-the-user" and memory.get("challenges", {}).get(
            challenge
        ) == form.get("redirect_uri", "")
        return None if good else "invalid_grant"
    if grant == "device_code":
        memory["polls"] = memory.get("polls", 0) + 1
        if form.get("device_code") != "dev1ce-code":
            return "invalid_grant"
        if memory["polls"] <= memory.get("pending", 2):
            return "authorization_pending"
        return memory.get("device_error")
    if grant == "jwt-bearer":
        return None if form.get("assertion", "").count(".") == 2 else "invalid_grant"
    return None if grant == "client_credentials" else "unsupported_grant_type"


def _issued(grant: str, memory: dict[str, Any]) -> dict[str, Any]:
    memory["issued"] = memory.get("issued", 0) + 1
    memory["access"] = f"access-t0ken-{memory['issued']}"
    answer = {"access_token": memory["access"], "token_type": "Bearer"}
    if memory.get("lifetime", 3600) is not None:
        answer["expires_in"] = memory.get("lifetime", 3600)
    if grant in ("authorization_code", "device_code") or memory.get("rotate"):
        memory["refresh"] = f"refresh-t0ken-{memory['issued']}"
    if grant in ("authorization_code", "device_code", "refresh_token"):
        answer["refresh_token"] = memory["refresh"]
    return answer


def oauth_settings(exchange: Exchange) -> None:
    """POST changes how the token endpoint behaves; GET tells what it gave out."""
    with exchange.lock:
        memory = exchange.memory.setdefault("oauth", {})
        if exchange.method == "POST":
            memory.update(exchange.json())
        exchange.reply(memory)


def oauth_api(exchange: Exchange) -> None:
    """Accepts the newest token; with `uses` it expires after so many requests.

    How another one is refused may be given: `status`, `body`, `challenge`.
    """
    with exchange.lock:
        memory = exchange.memory.setdefault("oauth", {})
        token = exchange.headers.get("Authorization", "").removeprefix("Bearer ")
        good = token and token == memory.get("access")
        if good and "uses" in exchange.query:
            used = memory.setdefault("used", {})
            used[token] = used.get(token, 0) + 1
            good = used[token] <= exchange.number("uses")
        if good:
            exchange.reply({"count": exchange.count})
        else:
            body = exchange.query.get("body", '{"error": "invalid_token"}').encode()
            headers = _given(exchange, {"challenge": "WWW-Authenticate"})
            exchange.reply(body, int(exchange.number("status", 401)), headers)


def app(exchange: Exchange) -> None:
    """A GitHub App's addresses, for JWTs that the key in the memory `app` verifies.

    The memory holds `key` (PEM), `id`, the `installations`, and the `lifetime` of tokens, which the
    route `/oauth/api` accepts.
    """
    from joserfc import jwt
    from joserfc.jwk import RSAKey

    with exchange.lock:
        if exchange.method == "PUT":
            exchange.memory["app"] = exchange.json()
            exchange.reply({})
            return
        memory = exchange.memory["app"]
        signed = exchange.headers.get("Authorization", "").removeprefix("Bearer ")
        now = time.time()
        try:
            claims = jwt.decode(
                signed, RSAKey.import_key(memory["key"]), algorithms=["RS256"]
            ).claims
            good = (
                claims["iss"] == memory["id"] and claims["iat"] < now < claims["exp"] <= now + 600
            )
        except Exception:
            good = False
        place = exchange.path.removeprefix("/app/installations").strip("/").partition("/")[0]
        found = memory.get("installations", [7])
        if not good:
            exchange.reply({"message": "A JSON web token could not be decoded"}, 401)
        elif not place:
            exchange.reply([{"id": one, "account": {"login": f"acme-{one}"}} for one in found])
        elif place not in map(str, found) or exchange.method != "POST":
            exchange.reply({"message": "Not Found"}, 404)
        else:
            token = _issued("app", exchange.memory.setdefault("oauth", {}))["access_token"]
            until = datetime.fromtimestamp(now + memory.get("lifetime", 3600), timezone.utc)
            answer = {"token": token, "expires_at": f"{until:%Y-%m-%dT%H:%M:%SZ}"}
            exchange.reply(answer, 201)


def authorize(exchange: Exchange) -> None:
    """The page on which a user agrees, who does so at once."""
    with exchange.lock:
        memory = exchange.memory.setdefault("oauth", {})
        challenges = memory.setdefault("challenges", {})
        challenges[exchange.query.get("code_challenge")] = exchange.query["redirect_uri"]
        memory["asked"] = exchange.query
        answer = memory.get("answer") or {"code": "c0de-of-the-user"}
        state = memory.get("state", exchange.query.get("state", ""))
    to = f"{exchange.query['redirect_uri']}?{urlencode({**answer, 'state': state})}"
    exchange.reply(b"", 302, {"Location": to})


def device(exchange: Exchange) -> None:
    exchange.reply(
        {
            "device_code": "dev1ce-code",
            "user_code": "WDJB-MJHT",
            "verification_uri": exchange.addresses["main"] + "/enter",
            "expires_in": 60,
            "interval": 0.01,
        }
    )


def log_in(exchange: Exchange) -> None:
    """A login of `ann` with `passw0rd-of-ann`; a one-time code is asked for if `otp` is set."""
    if exchange.headers.get("Content-Type", "").startswith("application/json"):
        given = exchange.json()
    else:
        given = exchange.form()
    with exchange.lock:
        memory = exchange.memory.setdefault("login", {})
        good = given.get("user") == "ann" and given.get("password") == "passw0rd-of-ann"
        if "otp" in exchange.query:
            code = given.get("otp", exchange.headers.get("X-OTP"))
            good = good and code in one_time_codes(exchange.query["otp"])
        if not good:
            exchange.reply({"error": f"wrong password {given.get('password')}"}, 403)
            return
        memory["count"] = memory.get("count", 0) + 1
        memory["token"] = f"sess1on-{memory['count']}"
    headers = [
        ("X-Session", memory["token"]),
        ("Set-Cookie", "theme=dark; Expires=Thu, 01 Jan 2099 00:00:00 GMT"),
        ("Set-Cookie", f"sid={memory['token']}; Path=/; HttpOnly"),
    ]
    exchange.reply({"data": {"token": memory["token"]}}, 200, headers)


def challenge(exchange: Exchange) -> None:
    """A login of two steps: the password gives a challenge's id, which comes back with the code.

    `otp` is the secret of the codes; without it the password is enough.
    """
    given = exchange.json()
    with exchange.lock:
        memory = exchange.memory.setdefault("login", {})
        if exchange.path == "/login/challenge":
            if (given.get("user"), given.get("password")) != ("ann", "passw0rd-of-ann"):
                exchange.reply({"error": "wrong password"}, 403)
                return
            if "otp" in exchange.query:
                name = f"ch4llenge-{exchange.count}"
                memory.setdefault("challenges", {})[name] = exchange.query["otp"]
                exchange.reply({"requires_mfa": True, "session_id": name})
                return
        elif given.get("code") not in one_time_codes(
            memory.get("challenges", {}).get(given.get("session_id"), "")
        ):
            exchange.reply({"error": f"wrong code {given.get('code')}"}, 403)
            return
        memory["count"] = memory.get("count", 0) + 1
        memory["token"] = f"sess1on-{memory['count']}"
        exchange.reply({"token": memory["token"]})


def quota(exchange: Exchange) -> None:
    """Each token may ask `each` times; then it is told to come back in `wait` seconds."""
    token = exchange.headers.get("Authorization", "")
    with exchange.lock:
        used = exchange.memory.setdefault("quota", {})
        used[token] = used.get(token, 0) + 1
        if used[token] > exchange.number("each", 2):
            exchange.reply({}, 429, {"Retry-After": exchange.query.get("wait", "60")})
        else:
            exchange.reply({"token": token.removeprefix("Bearer ")})


def session_api(exchange: Exchange) -> None:
    """Accepts the newest session, in `X-Session` or in the cookie `sid`; `uses` as for OAuth."""
    with exchange.lock:
        memory = exchange.memory.setdefault("login", {})
        cookie = exchange.headers.get("Cookie", "").removeprefix("sid=")
        token = exchange.headers.get("X-Session") or cookie
        good = bool(token) and token == memory.get("token")
        if good and "uses" in exchange.query:
            used = memory.setdefault("used", {})
            used[token] = used.get(token, 0) + 1
            good = used[token] <= exchange.number("uses")
    exchange.reply({"count": exchange.count}, 200 if good else 401)


def one_time_codes(secret: str) -> list[str]:
    """Returns the codes of now and of 30 seconds before (RFC 6238), written down a second time."""
    key = base64.b32decode(secret)
    codes = []
    for step in (0, 1):
        counter = int(time.time() // 30 - step).to_bytes(8, "big")
        digest = hmac.new(key, counter, hashlib.sha1).digest()
        start = digest[-1] & 15
        number = int.from_bytes(digest[start : start + 4], "big") & 0x7FFFFFFF
        codes.append(f"{number % 1_000_000:06d}")
    return codes


def script(exchange: Exchange) -> None:
    """Answers as it was told by a PUT: a list of `status`, `headers` and `body`, the last for ever.

    A body that is text goes out as it is, anything else as JSON; `cut` ends the connection after so
    many bytes of it without having said how many there are, or before the first with 0.
    """
    with exchange.lock:
        scripts = exchange.memory.setdefault("scripts", {})
        if exchange.method == "PUT":
            scripts[exchange.path] = exchange.json()
            exchange.reply({})
            return
        lines = scripts[exchange.path]
        line = lines.pop(0) if len(lines) > 1 else lines[0]
    headers = line.get("headers", {})
    body = line.get("body", {})
    if "cut" in line:
        text = body if isinstance(body, str) else json.dumps(body)
        if line["cut"]:
            head = exchange.head(200, [("Content-Type", "application/json")])
            exchange.raw(head + text.encode()[: line["cut"]])
        exchange.cut()
        return
    kind = "application/json" if isinstance(body, str) else None
    exchange.reply(body, line.get("status", 200), headers, kind)


def _given(exchange: Exchange, names: dict[str, str]) -> dict[str, str]:
    return {
        header: exchange.query[name] for name, header in names.items() if name in exchange.query
    }


ROUTES: dict[str, Route] = {
    "/ok": ok,
    "/ok/": ok,
    "/echo": echo,
    "/echo/": echo,
    "/status/": status,
    "/flaky": flaky,
    "/flaky/": flaky,
    "/limited": limited,
    "/used-up": used_up,
    "/slow": slow,
    "/drip": drip,
    "/cut": cut,
    "/cut/": cut,
    "/big": big,
    "/bomb": bomb,
    "/packed": packed,
    "/bad/": bad,
    "/redirect": redirect,
    "/circle": circle,
    "/links": links,
    "/versioned": versioned,
    "/guarded": guarded,
    "/app/installations": app,
    "/app/installations/": app,
    "/oauth/token": token_endpoint,
    "/oauth/settings": oauth_settings,
    "/oauth/api": oauth_api,
    "/oauth/authorize": authorize,
    "/oauth/device": device,
    "/login": log_in,
    "/login/challenge": challenge,
    "/login/code": challenge,
    "/session/api": session_api,
    "/quota": quota,
    "/script": script,
    "/script/": script,
}
