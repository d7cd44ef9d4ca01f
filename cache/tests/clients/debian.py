"""Debian's redis-py (python3-redis 4.3), unchanged, against a running cache: the part of `redis_py.py` that needs no registry.

Called with the port of a standalone node. Ends with status 1 at the first surprise.
"""

import sys
import threading

import redis
from redis.exceptions import LockNotOwnedError, ResponseError, WatchError

r = redis.Redis("127.0.0.1", int(sys.argv[1]), decode_responses=True, socket_timeout=20)
r.flushall()

assert r.set("s", "x", ex=100) and 0 < r.ttl("s") <= 100
assert r.set("s", "y", nx=True) is None and r.set("s", "y", get=True) == "x"
assert r.incr("n", 5) == 5 and r.incrbyfloat("n", 0.5) == 5.5
assert r.hset("h", mapping={"a": 1, "b": 2}) == 2 and r.hgetall("h") == {"a": "1", "b": "2"}
assert r.rpush("l", *range(5)) == 5 and r.lrange("l", 1, -2) == ["1", "2", "3"]
assert r.sadd("t", "a", "b") == 2 and r.smembers("t") == {"a", "b"}
assert r.zadd("z", {"a": 1, "b": 2.5}) == 2
assert r.zrange("z", 0, -1, withscores=True) == [("a", 1.0), ("b", 2.5)]
assert r.blpop("l", timeout=1) == ("l", "0") and r.blpop("nothing", timeout=0.01) is None
assert r.info()["redis_mode"] == "standalone" and r.client_list() and r.command_count() > 200
try:
    r.lpush("s", "no list")
    raise AssertionError("a string was taken for a list")
except ResponseError as error:
    assert str(error).startswith("WRONGTYPE"), error

keys = {f"scan:{number}" for number in range(500)}
with r.pipeline(transaction=False) as pipeline:
    for key in keys:
        pipeline.set(key, "x")
    assert all(pipeline.execute())
assert set(r.scan_iter("scan:*", count=50)) == keys

with r.pipeline() as transaction:
    transaction.watch("n")
    transaction.multi()
    transaction.set("n", 1)
    r.set("n", 2)
    try:
        transaction.execute()
        raise AssertionError("a watched key had changed")
    except WatchError:
        pass
assert r.get("n") == "2"

lock = r.lock("lock", timeout=10)
assert lock.acquire(blocking=False) and not r.lock("lock", timeout=10).acquire(blocking=False)
assert lock.extend(5) and lock.reacquire() and lock.owned()
lock.release()
assert lock.acquire(blocking=False)
r.set("lock", "another's")
try:
    lock.release()
    raise AssertionError("a lock that another holds was released")
except LockNotOwnedError:
    pass

subscriber = r.pubsub(ignore_subscribe_messages=True)
subscriber.subscribe("channel")
subscriber.psubscribe("ch*")
assert subscriber.get_message(timeout=5) is None and subscriber.get_message(timeout=5) is None
publisher = threading.Thread(target=lambda: r.publish("channel", "hello"))
publisher.start()
publisher.join()
kinds = {subscriber.get_message(timeout=5)["type"] for _ in range(2)}
assert kinds == {"message", "pmessage"}, kinds

print(f"redis-py {redis.__version__} of Debian: all is well")
