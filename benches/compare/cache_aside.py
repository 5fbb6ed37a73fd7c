"""A caching API as it is usually written: FastAPI, redis-py, cache-aside, with what is in Redis read as JSON and returned.

/passed/ITEM is the same with less: what is in Redis is sent as it is, and nobody looks at it.
"""

import json
import os
import urllib.request

import redis.asyncio as redis
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool

ORIGIN = os.environ["ORIGIN"]
KEYS = {os.environ["KEY"]: "bench"}

app = FastAPI()
cache = redis.from_url(os.environ["REDIS_URL"])


def load(item: int) -> bytes:
    with urllib.request.urlopen(f"{ORIGIN}/items/{item}") as answer:
        return answer.read()


async def find(item: int, request: Request) -> tuple[str, bytes]:
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
    return how, body


@app.get("/items/{item}")
async def get_item(item: int, request: Request, response: Response):
    how, body = await find(item, request)
    response.headers["X-Cache"] = how
    response.headers["Cache-Control"] = "private, max-age=30"
    return json.loads(body)


@app.get("/passed/{item}")
async def pass_item(item: int, request: Request) -> Response:
    how, body = await find(item, request)
    headers = {"X-Cache": how, "Cache-Control": "private, max-age=30"}
    return Response(body, media_type="application/json", headers=headers)
