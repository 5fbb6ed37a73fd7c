"""A caching API as it is usually written: FastAPI, redis-py, cache-aside. The body is kept as it is sent, so a hit parses no JSON."""

import os

import redis.asyncio as redis
import urllib.request
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool

ORIGIN = os.environ["ORIGIN"]
KEYS = {os.environ["KEY"]: "bench"}

app = FastAPI()
cache = redis.from_url(os.environ["REDIS_URL"])


def load(item: int) -> bytes:
    with urllib.request.urlopen(f"{ORIGIN}/items/{item}") as answer:
        return answer.read()


@app.get("/items/{item}")
async def get_item(item: int, request: Request) -> Response:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or key not in KEYS:
        raise HTTPException(401)
    name = f"item:{item}"
    body = await cache.get(name)
    how = "HIT"
    if body is None:
        how = "MISS"
        body = await run_in_threadpool(load, item)
        await cache.set(name, body, ex=3600)
    headers = {"X-Cache": how, "Cache-Control": "private, max-age=30"}
    return Response(body, media_type="application/json", headers=headers)
