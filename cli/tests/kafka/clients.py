"""What confluent-kafka, which knows nothing of Ropeway, reads of a topic and writes to it, by the layout of docs/kafka.md.

Called as clients.py HOST:PORT TOPIC read|write or clients.py HOST:PORT TOPIC lag GROUP; prints JSON, one object a line.
"""

import json
import sys

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

SERVER, TOPIC = sys.argv[1], sys.argv[2]


def text(value):
    return None if value is None else value.decode()


def consumer():
    return Consumer({"bootstrap.servers": SERVER, "group.id": "clients.py", "enable.auto.commit": False})


def ends(of):
    partitions = of.list_topics(TOPIC, timeout=30).topics[TOPIC].partitions
    return {number: of.get_watermark_offsets(TopicPartition(TOPIC, number), timeout=30) for number in partitions}


def read():
    of = consumer()
    left = {number: high for number, (low, high) in ends(of).items() if high > low}
    of.assign([TopicPartition(TOPIC, number, 0) for number in left])
    while left:
        message = of.poll(30)
        if message is None or message.error():
            sys.exit(f"not all came: {left}: {message and message.error()}")
        kind, millis = message.timestamp()
        record = {
            "partition": message.partition(),
            "offset": message.offset(),
            "kind": kind,
            "millis": millis,
            "key": text(message.key()),
            "headers": [{"name": name, "value": text(value)} for name, value in message.headers() or []],
            "payload": text(message.value()),
        }
        print(json.dumps(record))
        if message.offset() + 1 >= left[message.partition()]:
            del left[message.partition()]
    of.close()


def lag():
    group = sys.argv[4]
    of = consumer()
    all_ends = ends(of)
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(TOPIC, number) for number in all_ends])
    admin = AdminClient({"bootstrap.servers": SERVER})
    told = admin.list_consumer_group_offsets([wanted], request_timeout=20)[group].result(30)
    for place in told.topic_partitions:
        low, high = all_ends[place.partition]
        print(json.dumps({"partition": place.partition, "lag": high - max(place.offset, low)}))
    of.close()


def write():
    failed = []
    to = Producer({"bootstrap.servers": SERVER, "acks": "all", "partitioner": "murmur2_random"})

    def send(**record):
        to.produce(TOPIC, on_delivery=lambda error, _: error and failed.append(str(error)), **record)

    whole = "0195e1f0-0000-7000-8000-00000000c0de"
    send(
        key="c-1",
        value='{"by":"confluent-kafka"}',
        headers=[("ce_type", b"order.paid"), ("trace", b"7"), ("none", None), ("trace", b""), ("ropeway-id", whole.encode())],
        timestamp=1_600_000_000_123,
    )
    send(value="only a payload", partition=0)
    send(key="c-2", value=None, partition=0)
    send(key="", value="", partition=0)
    to.flush(30)
    if failed:
        sys.exit(f"not written: {failed}")


{"read": read, "lag": lag, "write": write}[sys.argv[3]]()
