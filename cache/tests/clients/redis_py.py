"""redis-py, unchanged, against a running cache: every part of it that applications lean on.

Called with the port of a standalone node and that of a node in cluster mode. Ends with status 1 at the first surprise.
"""

import sys
import threading
import time

import redis
from redis.backoff import NoBackoff
from redis.cache import CacheConfig
from redis.cluster import RedisCluster
from redis.exceptions import LockError, LockNotOwnedError, NoScriptError, ResponseError, WatchError
from redis.retry import Retry

HOST = "127.0.0.1"
PORT, CLUSTER_PORT = int(sys.argv[1]), int(sys.argv[2])


def connect(protocol, **options):
    return redis.Redis(HOST, PORT, protocol=protocol, decode_responses=True, **options)


def until(condition, what):
    """Waits for what another connection brings about."""
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit, what
        time.sleep(0.005)


def values(r):
    assert r.set("s", "x", ex=100) and 0 < r.ttl("s") <= 100
    assert r.set("s", "y", nx=True) is None
    assert r.set("s", "y", get=True) == "x"
    assert r.incr("n", 5) == 5 and r.incrbyfloat("n", 0.5) == 5.5
    assert r.hset("h", mapping={"a": 1, "b": 2}) == 2 and r.hgetall("h") == {"a": "1", "b": "2"}
    assert r.hexpire("h", 100, "a") == [1] and 0 < r.httl("h", "a")[0] <= 100
    assert r.rpush("l", *range(5)) == 5 and r.lrange("l", 1, -2) == ["1", "2", "3"]
    assert r.sadd("t", "a", "b") == 2 and r.smembers("t") == {"a", "b"}
    assert r.zadd("z", {"a": 1, "b": 2.5}) == 2 and r.zscore("z", "b") == 2.5
    assert [list(it) for it in r.zrange("z", 0, -1, withscores=True)] == [["a", 1.0], ["b", 2.5]]
    assert r.mset({"m1": "1", "m2": "2"}) and r.mget("m1", "nothing", "m2") == ["1", None, "2"]
    assert r.bitfield("f").incrby("u8", 0, 255).incrby("u8", 0, 1).execute() == [255, 0]
    assert r.pfadd("p", *range(100)) == 1 and 95 <= r.pfcount("p") <= 105
    assert r.restore("copy", 0, redis.Redis(HOST, PORT).dump("l")) and r.llen("copy") == 5
    try:
        r.lpush("s", "no list")
        raise AssertionError("a string was taken for a list")
    except ResponseError as error:
        assert str(error).startswith("WRONGTYPE"), error
    assert r.object("encoding", "z") and r.memory_usage("l") > 0
    assert r.info()["redis_mode"] == "standalone" and r.config_get("maxmemory*")["maxmemory"] == "0"
    assert r.command_count() > 200 and "get" in r.command() and r.client_list()


def scans(r):
    keys = {f"scan:{i}" for i in range(1000)}
    with r.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.set(key, 1)
        assert pipeline.execute() == [True] * 1000
    assert set(r.scan_iter("scan:*", count=50)) == keys
    r.hset("big", mapping={f"f{i}": i for i in range(500)})
    assert len(dict(r.hscan_iter("big", count=50))) == 500
    assert r.delete(*keys) == 1000


def transactions(r):
    with r.pipeline() as pipeline:
        replies = pipeline.set("a", 1).incr("a").lpush("a", 1).get("a").execute(False)
    assert replies[:2] == [True, 2] and isinstance(replies[2], ResponseError) and replies[3] == "2"

    with r.pipeline() as pipeline:
        pipeline.watch("a")
        pipeline.multi()
        pipeline.set("a", "lost")
        r.set("a", "between")
        try:
            pipeline.execute()
            raise AssertionError("a watched key changed unseen")
        except WatchError:
            assert r.get("a") == "between"

    # Loops of WATCH from several threads lose no update.
    r.set("count", 0)

    def count():
        def add(pipeline):
            value = int(pipeline.get("count"))
            pipeline.multi()
            pipeline.set("count", value + 1)

        for _ in range(25):
            r.transaction(add, "count")

    threads = [threading.Thread(target=count) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert r.get("count") == "100"


def messages(r):
    with r.pubsub() as pubsub:
        pubsub.subscribe("news")
        pubsub.psubscribe("n*s")
        until(lambda: r.pubsub_numsub("news") == [("news", 1)] and r.pubsub_numpat() == 1, "subscribed")
        assert r.publish("news", "hello") == 2
        seen = []

        def receive():
            message = pubsub.get_message(ignore_subscribe_messages=True, timeout=0.05)
            seen.extend([(message["type"], message["data"])] if message else [])
            return len(seen) == 2

        until(receive, "two messages")
        assert sorted(seen) == [("message", "hello"), ("pmessage", "hello")], seen
    with r.pubsub() as pubsub:
        pubsub.ssubscribe("shard")
        until(lambda: r.execute_command("SPUBLISH", "shard", "x") == 1, "a subscriber to a channel of a slot")


def waits(r):
    popped = []
    thread = threading.Thread(target=lambda: popped.append(r.blpop(["q1", "q2"], timeout=10)))
    thread.start()
    until(lambda: r.info("clients")["blocked_clients"] == 1, "a client waits")
    r.rpush("q2", "x")
    thread.join()
    assert [list(it) for it in popped] == [["q2", "x"]], popped
    assert r.blpop("q1", timeout=0.05) is None and r.blmove("q1", "q2", 0.05) is None
    assert r.bzpopmin("zq", timeout=0.05) is None


def locks(r):
    lock = r.lock("lock", timeout=10)
    assert lock.acquire() and lock.locked() and lock.owned()
    other = r.lock("lock", timeout=10, blocking_timeout=0.1, sleep=0.02)
    assert not other.acquire() and not other.acquire(blocking=False)
    assert lock.extend(20) and 20_000 < r.pttl("lock") <= 30_000
    assert lock.extend(5, replace_ttl=True) and r.pttl("lock") <= 5_000
    assert lock.reacquire() and 5_000 < r.pttl("lock") <= 10_000
    lock.release()
    assert not r.exists("lock")
    for refused in (lock.release, lambda: lock.extend(1), lock.reacquire):
        try:
            refused()
            raise AssertionError("a lock that is not held was used")
        except LockError:
            pass

    # Whoever waits gets the lock when it is released, or when its time is over; who lost it is told so.
    lock.acquire()
    taken = []
    waiter = r.lock("lock", sleep=0.01)
    thread = threading.Thread(target=lambda: taken.append(waiter.acquire(blocking_timeout=10)))
    thread.start()
    lock.release()
    thread.join()
    assert taken == [True]
    r.delete("lock")
    short = r.lock("lock", timeout=0.05)
    assert short.acquire()
    assert r.lock("lock", timeout=10, sleep=0.01).acquire(blocking_timeout=10)
    try:
        short.release()
        raise AssertionError("a lock was released whose time was over")
    except LockNotOwnedError:
        pass
    r.delete("lock")
    with r.lock("lock", timeout=10):
        assert r.exists("lock")
    assert not r.exists("lock")

    # Any other script is refused with words that help.
    try:
        r.register_script("return redis.call('incr', KEYS[1])")(keys=["n"])
        raise AssertionError("a script ran")
    except (ResponseError, NoScriptError) as error:
        assert "no scripting engine" in str(error), error


def caching():
    r = connect(3, cache_config=CacheConfig())
    other = connect(2)
    other.set("cached", "1")
    assert r.get("cached") == "1" and r.get("cached") == "1"
    assert r.get_cache().size == 1
    other.set("cached", "2")
    until(lambda: r.get("cached") == "2", "an invalidation")
    other.set("cached", "3", px=30)
    until(lambda: r.get("cached") is None, "an invalidation at the deadline")
    r.close()


def connections():
    pool = redis.BlockingConnectionPool(
        host=HOST, port=PORT, max_connections=4, timeout=20, health_check_interval=1, decode_responses=True
    )
    r = redis.Redis(connection_pool=pool, client_name="pooled")
    wrong = []

    def work(number):
        for i in range(50):
            r.set(f"pool:{number}", i)
            if r.get(f"pool:{number}") != str(i):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong and len(r.client_list()) <= 6

    # A connection that was closed under the client is made again.
    r = connect(3, retry=Retry(NoBackoff(), 3), retry_on_error=[redis.ConnectionError])
    admin = connect(2)
    admin.client_kill_filter(_id=r.client_id())
    assert r.ping()


def users():
    r = connect(2)
    r.acl_setuser("app", enabled=True, passwords=["+secret"], keys=["app:*"], categories=["+@all", "-@dangerous"])
    app = connect(3, username="app", password="secret")
    assert app.set("app:1", "x")
    for refused in (lambda: app.get("other"), app.flushall):
        try:
            refused()
            raise AssertionError("access control let through what it must not")
        except redis.exceptions.NoPermissionError:
            pass
    try:
        connect(2, username="app", password="wrong").ping()
        raise AssertionError("a wrong password was taken")
    except redis.AuthenticationError:
        pass
    assert r.acl_deluser("app") == 1


def cluster():
    r = RedisCluster(host=HOST, port=CLUSTER_PORT, decode_responses=True)
    assert all(r.set(f"key:{i}", i) for i in range(200))
    assert r.mget_nonatomic([f"key:{i}" for i in range(200)]) == [str(i) for i in range(200)]
    with r.pipeline() as pipeline:
        for i in range(200):
            pipeline.incr(f"key:{i}")
        assert pipeline.execute() == list(range(1, 201))
    assert len(list(r.scan_iter("key:*"))) == 200
    assert r.sinterstore("{t}c", ["{t}a", "{t}b"]) == 0
    assert r.cluster_keyslot("foo") == 12182 and len(r.get_nodes()) == 1
    assert r.lock("{t}lock", timeout=5).acquire()
    r.close()


for protocol in (2, 3):
    client = connect(protocol)
    client.flushall()
    for check in (values, scans, transactions, messages, waits, locks):
        check(client)
    client.close()
caching()
connections()
users()
cluster()
print(f"redis-py {redis.__version__}: all is well")
