"""What redis-py, which knows nothing of Ropeway, reads of a topic and writes to it, by the field layout of docs/redis.md.

Called as clients.py PORT read|lag|write; prints JSON, one object a line.
"""

import json
import sys
import time
import uuid

import redis

TOPIC, GROUP = "orders", "billing"
server = redis.Redis(port=int(sys.argv[1]))


def log(partition):
    return f"ropeway:{{{TOPIC}/{partition}}}:log"


def number(packed, at):
    """An unsigned number in groups of 7 bits, the lowest first."""
    value = shift = 0
    while True:
        byte = packed[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def unpacked(packed):
    """Headers: length of the name, the name, length of the value and one, or 0 for null, the value."""
    headers, at = [], 0
    while at < len(packed):
        length, at = number(packed, at)
        name, at = packed[at : at + length].decode(), at + length
        length, at = number(packed, at)
        value = None
        if length:
            value, at = packed[at : at + length - 1].decode(), at + length - 1
        headers.append({"name": name, "value": value})
    return headers


def packed(headers):
    out = b""
    for name, value in headers:
        out += bytes([len(name)]) + name.encode()
        out += b"\0" if value is None else bytes([len(value) + 1]) + value.encode()
    return out


def read():
    partitions = int(server.hget(f"ropeway:topic:{{{TOPIC}}}", "partitions"))
    for partition in range(partitions):
        for place, fields in server.xrange(log(partition)):
            payload = fields.get(b"payload")
            print(
                json.dumps(
                    {
                        "partition": partition,
                        "position": place.decode(),
                        "id": str(uuid.UUID(bytes=fields[b"id"])),
                        "millis": int(fields[b"ts"]),
                        "key": fields[b"key"].decode() if b"key" in fields else None,
                        "headers": unpacked(fields.get(b"headers", b"")),
                        "payload": payload.decode() if payload is not None else None,
                    }
                )
            )


def lag():
    partitions = int(server.hget(f"ropeway:topic:{{{TOPIC}}}", "partitions"))
    for partition in range(partitions):
        for group in server.xinfo_groups(log(partition)):
            print(json.dumps({"partition": partition, "group": group["name"].decode(), "lag": group["lag"]}))


def write():
    whole = {
        "id": uuid.UUID("0195e1f0-0000-7000-8000-000000000001").bytes,
        "ts": int(time.time() * 1000),
        "key": "c-1",
        "headers": packed([("ce_type", "order.paid"), ("trace", "7"), ("none", None)]),
        "payload": '{"by":"redis-py"}',
    }
    server.xadd(log(0), whole, nomkstream=True)
    server.xadd(log(0), {"payload": "only a payload"}, nomkstream=True)
    server.xadd(log(0), {"surprise": "no field of a message"}, nomkstream=True)
    server.xadd("stock", {"user": "7", "action": "login"})
    server.xadd("stock", {"body": "one field"})


{"read": read, "lag": lag, "write": write}[sys.argv[2]]()
