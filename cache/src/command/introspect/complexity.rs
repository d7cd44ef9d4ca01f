//! How the time of a command grows, as `COMMAND DOCS` tells it.
//!
//! What is not listed takes constant time (`O(1)`) beside that for its arguments and its reply. N and M are explained where they stand.

/// What grows how, and the commands that have just that.
const COMPLEXITIES: &[(&str, &[&str])] = &[
    (
        "O(N), N being the number of keys",
        &["del", "exists", "mget", "mset", "msetnx", "touch", "unlink", "watch", "unwatch"],
    ),
    ("O(N), N being the number of keys in the database", &["keys", "flushdb", "memory|stats"]),
    ("O(N), N being the number of keys in all databases", &["flushall"]),
    ("O(N), N being the size of the value", &["bitcount", "bitpos", "copy", "dump", "restore"]),
    ("O(N), N being the length of the longest string", &["bitop"]),
    ("O(N), N being the length of what is returned", &["getrange", "substr"]),
    ("O(N), N being the number of operations", &["bitfield", "bitfield_ro"]),
    ("O(N*M), N and M being the lengths of the strings", &["lcs"]),
    (
        "O(N), N being the number of elements given",
        &["pfadd", "lpush", "lpushx", "rpush", "rpushx", "sadd", "srem", "smismember", "zmscore"],
    ),
    ("O(N), N being the number of sketches", &["pfcount", "pfmerge"]),
    (
        "O(N), N being the number of fields given",
        &[
            "hdel",
            "hexpire",
            "hexpireat",
            "hexpiretime",
            "hgetdel",
            "hgetex",
            "hmget",
            "hmset",
            "hpersist",
            "hpexpire",
            "hpexpireat",
            "hpexpiretime",
            "hpttl",
            "hset",
            "hsetex",
            "httl",
        ],
    ),
    ("O(N), N being the number of fields in the hash", &["hgetall", "hkeys", "hvals"]),
    ("O(N), N being the number of fields returned", &["hrandfield"]),
    ("O(N), N being the number of elements in the list", &["linsert", "lpos", "lrem", "ltrim"]),
    ("O(N), N being the number of elements to the place from the nearer end", &["lindex", "lset"]),
    (
        "O(S+N), S being the distance of the start from the nearer end and N the number of elements returned",
        &["lrange"],
    ),
    ("O(N), N being the number of elements removed", &["lpop", "rpop", "lmpop", "blmpop", "spop"]),
    ("O(N), N being the number of keys waited for", &["blpop", "brpop"]),
    ("O(N), N being the number of members in the set", &["smembers"]),
    ("O(N), N being the number of members returned", &["srandmember", "zrandmember"]),
    ("O(N), N being the number of members in all sets", &["sunion", "sunionstore"]),
    (
        "O(N*M), N being the number of members in the smallest set and M the number of sets",
        &["sinter", "sintercard", "sinterstore"],
    ),
    ("O(N), N being the number of members in all sets", &["sdiff", "sdiffstore"]),
    ("O(log(N)) for each member, N being the number of members", &["zadd", "zincrby", "zrem"]),
    ("O(log(N)), N being the number of members", &["zcount", "zlexcount", "zrank", "zrevrank"]),
    (
        "O(M*log(N)), M being the number of members removed and N that of all",
        &["zpopmax", "zpopmin", "bzpopmax", "bzpopmin", "zmpop", "bzmpop"],
    ),
    (
        "O(log(N)+M), N being the number of members and M that of those returned or removed",
        &[
            "zrange",
            "zrangebylex",
            "zrangebyscore",
            "zrevrange",
            "zrevrangebylex",
            "zrevrangebyscore",
            "zremrangebylex",
            "zremrangebyrank",
            "zremrangebyscore",
        ],
    ),
    (
        "O(log(N)+M*log(M)), N being the number of members and M that of those stored",
        &["zrangestore"],
    ),
    (
        "O(N*log(N)), N being the number of members in all sorted sets",
        &["zunion", "zunionstore", "zdiff", "zdiffstore"],
    ),
    (
        "O(N*M+K*log(K)), N being the number of members in the smallest sorted set, M the number of sorted sets and K the number of members in the result",
        &["zinter", "zinterstore"],
    ),
    (
        "O(N*M), N being the number of members in the smallest sorted set and M the number of sorted sets",
        &["zintercard"],
    ),
    (
        "O(N+M*log(M)), N being the number of elements and M that of those returned",
        &["sort", "sort_ro"],
    ),
    (
        "O(COUNT) for each call, O(N) for a whole iteration, N being the number of elements",
        &["scan", "hscan", "sscan", "zscan"],
    ),
    (
        "O(N), N being the number of commands in the transaction, beside what they take",
        &["exec", "discard"],
    ),
    (
        "O(N+M), N being the number of subscribers of the channel and M the number of patterns",
        &["publish"],
    ),
    ("O(N), N being the number of subscribers of the channel", &["spublish"]),
    (
        "O(N), N being the number of channels or patterns given",
        &[
            "subscribe",
            "unsubscribe",
            "psubscribe",
            "punsubscribe",
            "ssubscribe",
            "sunsubscribe",
            "pubsub|numsub",
            "pubsub|shardnumsub",
        ],
    ),
    ("O(N), N being the number of channels", &["pubsub|channels", "pubsub|shardchannels"]),
    (
        "O(N), N being the number of clients",
        &["client|kill", "client|list", "client|unpause", "info"],
    ),
    (
        "O(N), N being the number of entries",
        &["acl|log", "latency|history", "slowlog|get", "slowlog|reset"],
    ),
    (
        "O(N), N being the number of rules or users",
        &["acl|deluser", "acl|getuser", "acl|list", "acl|setuser", "acl|users"],
    ),
    ("O(N), N being the number of settings", &["config|get", "config|set"]),
    (
        "O(N), N being the number of commands",
        &[
            "command",
            "command|docs",
            "command|info",
            "command|list",
            "acl|cat",
            "config|resetstat",
            "latency|histogram",
        ],
    ),
    ("O(N), N being the number of keys asked for", &["cluster|getkeysinslot"]),
    (
        "O(N), N being the number of slots",
        &["cluster|shards", "cluster|slots", "cluster|nodes", "lattice|ring"],
    ),
    (
        "O(N), N being the number of clients that watch or track keys of either database",
        &["swapdb"],
    ),
];

/// That of the command of this full name.
pub(super) fn of(name: &str) -> &'static str {
    let found = COMPLEXITIES.iter().find(|(_, names)| names.contains(&name));
    found.map_or("O(1)", |(complexity, _)| complexity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::category::find_command;

    #[test]
    fn every_name_is_a_command_and_there_once() {
        let names: Vec<&str> =
            COMPLEXITIES.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        for name in &names {
            assert!(find_command(name.as_bytes()).is_some(), "{name}");
            assert_eq!(names.iter().filter(|it| it == &name).count(), 1, "{name}");
        }
        assert_eq!((of("get"), of("zrank")), ("O(1)", "O(log(N)), N being the number of members"));
    }
}
