"""A check for scripts/openapi: 304 and 412 answer a condition that the request has."""

import schemathesis


@schemathesis.check
def conditions(ctx, response, case):
    sent = {name.lower(): value for name, value in response.request.headers.items()}
    if response.status_code == 304:
        (tag,) = response.headers["etag"]
        listed = sent.get("if-none-match", "").strip()
        assert listed == "*" or tag.removeprefix("W/") in listed, f"304 for {listed!r}, {tag}"
    if response.status_code == 412:
        assert "if-match" in sent or "if-none-match" in sent, "412 without a condition"
