"""Asks questions with requests: python3 questions.py URL KEY. The server makes 4 loads for it."""

import sys

import requests

url, key = sys.argv[1:]
session = requests.Session()
session.headers["Authorization"] = f"Bearer {key}"


def ask(method, body, **more):
    return session.request(method, url, json=body, timeout=60, **more)


def is_hit(answer):
    return answer.headers["Cache-Status"].startswith("larder-memory; hit")


# Load 1. Every spelling of it is one question, whatever the method.
first = requests.post(
    url,
    json={"question": "What is a cache?"},
    headers={"Authorization": f"Bearer {key}"},
    timeout=60,
)
first.raise_for_status()
assert first.json().endswith("You asked: What is a cache? (answer in en)"), first.text
assert first.headers["Cache-Control"] == "no-store", first.headers
assert not is_hit(first), first.headers
for method in ["POST", "QUERY"]:
    for body in [
        {"question": "What is a cache?"},
        {"question": "What is a cache?", "language": "en"},
        {"language": "en", "question": "What is a cache?"},
    ]:
        again = ask(method, body)
        assert (again.status_code, again.json()) == (200, first.json()), again.text
        assert is_hit(again), again.headers

# Load 2. requests escapes what is not ASCII, and the sandbox returns the question.
text = 'Größe "in" \\ {braces} 日本\n\U0001f600\u2028'
answer = ask("QUERY", {"question": text, "language": "de"})
assert answer.json().endswith(f"You asked: {text} (answer in de)"), answer.text

# The same, sent as UTF-8 by hand.
raw = '{"language":"de","question":"Größe \\"in\\" \\\\ {braces} 日本\\n\U0001f600\u2028"}'
answer = session.request(
    "QUERY",
    url,
    data=raw.encode(),
    headers={"Content-Type": "application/json; charset=utf-8"},
    timeout=60,
)
assert answer.json().endswith(f"You asked: {text} (answer in de)"), answer.text
assert is_hit(answer), answer.headers

# A condition holds for QUERY, and POST has none.
tag = ask("QUERY", {"question": "What is a cache?"}).headers["ETag"]
known = ask("QUERY", {"question": "What is a cache?"}, headers={"If-None-Match": tag})
assert (known.status_code, known.content) == (304, b""), known.text
assert known.headers["ETag"] == tag
whole = ask("POST", {"question": "What is a cache?"}, headers={"If-None-Match": tag})
assert (whole.status_code, whole.json()) == (200, first.json()), whole.text

# Load 3: another question has another tag.
other = ask("QUERY", {"question": "Why?"}, headers={"If-None-Match": tag})
assert other.status_code == 200 and other.headers["ETag"] != tag, other.headers


# An error leaves the connection usable, and says what is wrong.
def refused(answer, status, says):
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["Content-Type"] == "application/problem+json", answer.headers
    problem = answer.json()
    assert problem["status"] == status and says in str(problem), problem


for method in ["POST", "QUERY"]:
    refused(ask(method, {}), 422, "question")
    refused(ask(method, {"question": ["a"]}), 422, "question")
    refused(ask(method, {"question": "a", "max_tokens": 5}), 422, "max_tokens")
    refused(ask(method, {"question": "\ud800"}), 422, "question")
    refused(ask(method, [1]), 422, "object")
    refused(ask(method, {"question": "a" * (64 << 10)}), 413, "65536 bytes")
    # A form, as `data=` with a dictionary makes it.
    form = session.request(method, url, data={"question": "a"}, timeout=60)
    refused(form, 415, "application/json")
    assert "application/json" in form.headers["Accept-Query"], form.headers
    refused(ask(method, {"question": "a"}, params={"question": "b"}), 400, "question")
get = session.get(url, params={"question": "a"}, timeout=60)
refused(get, 405, "QUERY")
assert get.headers["Allow"] == "POST, QUERY", get.headers
nobody = requests.post(url, json={"question": "a"}, timeout=60)
refused(nobody, 401, "")
assert nobody.headers["WWW-Authenticate"] == "Bearer"

# Load 4, in chunks: requests sends no Content-Length for a generator.
chunks = (part for part in [b'{"question":', b'"In pieces?"}'])
answer = session.post(
    url, data=chunks, headers={"Content-Type": "application/json"}, timeout=60
)
assert answer.json().endswith("You asked: In pieces? (answer in en)"), answer.text
