// ioredis and redlock, unchanged, against a running cache.
//
// Called with the port of a standalone node and that of a node in cluster mode. Ends with status 1 at the first surprise.

const assert = require("node:assert/strict");
const { once } = require("node:events");
const { Redis, Cluster } = require("ioredis");
const Redlock = require("redlock").default;

const [port, clusterPort] = process.argv.slice(2).map(Number);

async function values(redis) {
  assert.equal(await redis.set("s", "x", "PX", 100000, "NX"), "OK");
  assert.equal(await redis.set("s", "y", "NX"), null);
  assert.equal((await redis.getBuffer("s")).toString(), "x");
  await redis.hset("h", { a: 1, b: 2 });
  assert.deepEqual(await redis.hgetall("h"), { a: "1", b: "2" });
  await redis.zadd("z", 1, "a", 2.5, "b");
  assert.deepEqual((await redis.zrange("z", 0, -1, "WITHSCORES")).flat().map(String), ["a", "1", "b", "2.5"]);
  await assert.rejects(redis.lpush("s", 1), /WRONGTYPE/);
  assert.match(await redis.info(), /redis_version:/);

  const replies = await redis.pipeline().set("p", 1).incr("p").lpush("p", 1).get("p").exec();
  assert.equal(replies[1][1], 2);
  assert.match(replies[2][0].message, /WRONGTYPE/);
  assert.equal(replies[3][1], "2");

  assert.deepEqual(await redis.multi().set("m", 1).incr("m").exec(), [[null, "OK"], [null, 2]]);
  const other = redis.duplicate();
  await redis.watch("m");
  await other.set("m", "changed");
  assert.equal(await redis.multi().set("m", "lost").exec(), null);

  // What is sent while the connection is made is answered in order.
  const many = await Promise.all(Array.from({ length: 1000 }, (_, i) => other.incrby("count", i)));
  assert.equal(many.at(-1), (999 * 1000) / 2);
  other.disconnect();
}

async function scans(redis) {
  const pipeline = redis.pipeline();
  for (let i = 0; i < 1000; i++) pipeline.set(`scan:${i}`, i);
  await pipeline.exec();
  const found = new Set();
  for await (const keys of redis.scanStream({ match: "scan:*", count: 50 })) keys.forEach((key) => found.add(key));
  assert.equal(found.size, 1000);
}

async function messages(redis) {
  const subscriber = redis.duplicate();
  await subscriber.subscribe("news");
  await subscriber.psubscribe("n*");
  const message = once(subscriber, "message");
  const pattern = once(subscriber, "pmessage");
  assert.equal(await redis.publish("news", "hello"), 2);
  assert.deepEqual((await message).map(String), ["news", "hello"]);
  assert.deepEqual((await pattern).map(String), ["n*", "news", "hello"]);
  subscriber.disconnect();
}

async function waits(redis) {
  const waiter = redis.duplicate();
  const popped = waiter.blpop("q", 10);
  await redis.rpush("q", "x");
  assert.deepEqual(await popped, ["q", "x"]);
  assert.equal(await waiter.blpop("q", 0.05), null);
  waiter.disconnect();
}

async function scripts(redis) {
  redis.defineCommand("bump", { numberOfKeys: 1, lua: "return redis.call('incr', KEYS[1])" });
  await assert.rejects(redis.bump("n"), /no scripting engine/);
}

async function locks(redis) {
  const redlock = new Redlock([redis], { retryCount: 0 });
  let lock = await redlock.acquire(["{lock}a", "{lock}b"], 10000);
  await assert.rejects(redlock.acquire(["{lock}b"], 1000));
  lock = await lock.extend(20000);
  const left = await redis.pttl("{lock}a");
  assert.ok(left > 10000 && left <= 20000, String(left));
  await lock.release();
  assert.equal(await redis.exists("{lock}a", "{lock}b"), 0);
}

async function cluster() {
  const nodes = new Cluster([{ host: "127.0.0.1", port: clusterPort }]);
  for (let i = 0; i < 100; i++) assert.equal(await nodes.set(`key:${i}`, i), "OK");
  const replies = await nodes.pipeline().get("key:1").incr("key:2").exec();
  assert.deepEqual(replies, [[null, "1"], [null, 3]]);
  await assert.rejects(nodes.mget("key:1", "key:2"), /CROSSSLOT/);
  assert.equal(nodes.nodes("master").length, 1);
  nodes.disconnect();
}

async function main() {
  const redis = new Redis(port, "127.0.0.1");
  await redis.flushall();
  const checks = { values, scans, messages, waits, scripts, locks };
  for (const [name, check] of Object.entries(checks)) {
    await check(redis).catch((error) => {
      error.message = `${name}: ${error.message}`;
      throw error;
    });
  }
  redis.disconnect();
  await cluster();
  console.log(`ioredis ${require("ioredis/package.json").version}: all is well`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
