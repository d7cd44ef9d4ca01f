//! The scripts that are known.
//!
//! What is kept of a script is its SHA-1 as the package sends it, the SHA-1 of its [normal form](super::normal_form), whose it is, and
//! how many keys it needs. The texts were read in the packages themselves: redis-py 8.1, redlock-py 1.0.8, Symfony Lock 4,
//! redlock-rb, pottery 3.0.1, redsync 4.18, bsm/redislock 0.9.4, node-redlock 4.2 and 5.0 beta 2, @sesamecare-oss/redlock 1.4,
//! redis-semaphore 5.8, python-redis-lock 4.0.1, Spring Integration 6.3, Redisson 3.37. Laravel and redlock-php send the one of
//! Redis's documentation.

use super::programs::{self, Program};

/// One script.
#[derive(Debug)]
pub(super) struct Row {
    /// What it does.
    pub(super) run: Program,
    /// How many keys it needs at least.
    pub(super) keys: usize,
    /// Whose it is, and what for.
    pub(super) source: &'static str,
    /// The SHA-1 of its text as it is sent.
    pub(super) exact: &'static str,
    /// The SHA-1 of its normal form.
    pub(super) normal: &'static str,
}

const fn row(
    run: Program,
    keys: usize,
    source: &'static str,
    exact: &'static str,
    normal: &'static str,
) -> Row {
    Row { run, keys, source, exact, normal }
}

/// All of them.
#[rustfmt::skip]
pub(super) static TABLE: &[Row] = &[
    row(programs::release_held, 1, "redis-py: Lock.release", "c3f8721cbb97f72bc19e972846bd7aaf91901658", "16d4f25a8b1272dc33002e333ca708ee3f94da4e"),
    row(programs::extend_held, 1, "redis-py: Lock.extend", "a4e8783852e6b949f9ef3a97212805108459a890", "bce326b8a0b21cc21af307b604335bbdd4e6ad86"),
    row(programs::reacquire_held, 1, "redis-py: Lock.reacquire", "1cac51482acf5858da00f6d685d68f886cd6b6b2", "b57b48d5536ae982a91ca9929e89a43a617db101"),
    row(programs::delete_if_equal, 1, "redlock-py: unlock", "4e92fdc63815b3a0a2dd1c1df3694de73607c88d", "278b7fc39f087c6276c7b7c08962022c4fe73ba6"),
    row(programs::delete_if_equal, 1, "Redis's documentation", "647c65a442733a1aa440f99908d249d13b4d6c4a", "278b7fc39f087c6276c7b7c08962022c4fe73ba6"),
    row(programs::touch_or_set_nx_status, 1, "Symfony Lock 4: save", "382a00f43d29409f9e1ebe2cbcfe1ec089f8d154", "c76b7225c702224da6e8748d0663856a6169ae30"),
    row(programs::expire_if_equal, 1, "Symfony Lock 4: putOffExpiration", "ae948f48c8da9feb2e215c474a412c605d33ff30", "43e9817a622cba86ea5a7b09b0c27646e33f4699"),
    row(programs::delete_if_equal, 1, "Symfony Lock 4: delete", "bec85b1c518b7ba0348a49c79b24adbb1ca95d3b", "278b7fc39f087c6276c7b7c08962022c4fe73ba6"),
    row(programs::delete_if_equal, 1, "redlock-rb: unlock", "8e4905cee18e7c3188d10f2b8b170e403baed34f", "278b7fc39f087c6276c7b7c08962022c4fe73ba6"),
    row(programs::lock_or_extend, 1, "redlock-rb: lock", "ceb2b2062e40c51a2b3963fd078bc71f11bdc65c", "ffa99ec5b46c59e83e2c83d0d6c1cf398727c3aa"),
    row(programs::value_and_ttl, 1, "redlock-rb: remaining time", "78d2ca48a6dc9ef6892059792a3a0c5237733d64", "c2a19a12724d3dfae84debbb04de53b5893ee6e9"),
    row(programs::remaining_if_equal, 1, "pottery: Redlock.locked", "f5f7bd3a3aa4a63c507c1155c5ea1219b350d992", "c76f40668b25c4be7c7e4e8fc67c7940b862be5a"),
    row(programs::expire_if_equal, 1, "pottery: Redlock.extend", "ba015a80261b616e7a62d35df0b8e3edbe6c9414", "43e9817a622cba86ea5a7b09b0c27646e33f4699"),
    row(programs::delete_if_equal, 1, "pottery: Redlock.release", "a4aada0b36710970eedaaaeec4a6b7d8c78c4f80", "278b7fc39f087c6276c7b7c08962022c4fe73ba6"),
    row(programs::delete_or_missing, 1, "redsync: unlock", "e950836ed1e694540c503ef9972b8de518044d3b", "d40d763d8f1fdb770873ffdbdc1cc2112866366a"),
    row(programs::touch_or_set_nx, 1, "redsync: extend with SetNX", "b6b55c439e02c6f52ffb8be7ec8c0d0ac816ea79", "63719198579dd67df3c84e5c3e12b4b0edf8cee8"),
    row(programs::expire_if_equal, 1, "redsync: extend", "d75bb8b5bd13532ddedd17762e772346e39b321e", "43e9817a622cba86ea5a7b09b0c27646e33f4699"),
    row(programs::expire_if_equal, 1, "bsm/redislock: refresh", "a7aba3bc5d6e99b3003da8b9d80a63b9f4092ecf", "43e9817a622cba86ea5a7b09b0c27646e33f4699"),
    row(programs::delete_if_equal, 1, "bsm/redislock: release", "cf0e94b2e9ffc7e04395cf88f7583fc309985910", "278b7fc39f087c6276c7b7c08962022c4fe73ba6"),
    row(programs::ttl_if_equal, 1, "bsm/redislock: ttl", "6484da7d58920897fdc22b7f9afd1a3d47524ea8", "2a7eeb58bfd3bfd5e34ac2be357d77d7a0039f6a"),
    row(programs::obtain, 1, "bsm/redislock: obtain", "80a1b5f2cfccec3b7119ba7721d2127682b691a7", "c13e317265e506ef73902a8cad4608c6d0590685"),
    row(programs::redlock_lock, 0, "node-redlock 4: lockScript", "e5a322e2634ef59a516e8ea150cb085afafee684", "efd90cc1d10d9161bc93896108742c697ce29faf"),
    row(programs::redlock_unlock, 0, "node-redlock 4: unlockScript", "0f0f23b9048b36752b5be114f357ba083449f908", "872463717b9d8763339c3b80e81ba68c1dbb28c2"),
    row(programs::redlock_extend, 0, "node-redlock 4: extendScript", "ce46f80993d5dac20dd066eb301a4e37994bdbed", "40cb6828065d3430c3033e27c7ec72abe4d076f6"),
    row(programs::redlock_lock, 0, "node-redlock 5: ACQUIRE_SCRIPT", "96da70f7716f27d278a5218544df37fd8b0a5e4c", "efd90cc1d10d9161bc93896108742c697ce29faf"),
    row(programs::redlock_unlock, 0, "node-redlock 5: RELEASE_SCRIPT", "e4612211c9f8f51c257e26e056b0a654b3187242", "872463717b9d8763339c3b80e81ba68c1dbb28c2"),
    row(programs::redlock_extend, 0, "node-redlock 5: EXTEND_SCRIPT", "aed6f382e410db8ba7926d4e5e9aab410bf2a78a", "40cb6828065d3430c3033e27c7ec72abe4d076f6"),
    row(programs::redlock_lock_in, 0, "@sesamecare-oss/redlock: ACQUIRE_SCRIPT", "1b77b94aa78451d55dfa97e18819bfbfc596cb5b", "33105ca68ad6aee7d68c8aa0d7528352aa98f255"),
    row(programs::redlock_unlock_in, 0, "@sesamecare-oss/redlock: RELEASE_SCRIPT", "df51f6837dcfe303d334e6abea9aeae192bab216", "a2bd082eb5b850c50e40c345c53c6e3fa7a94022"),
    row(programs::redlock_extend_in, 0, "@sesamecare-oss/redlock: EXTEND_SCRIPT", "820e9778d2b6733e9ed771e4be90ae73a95a6f3b", "83ae867f0d18f8e9d61a596106ffa93f26ef0bc1"),
    row(programs::delete_if_equal, 1, "redis-semaphore: mutex release", "7157921a7cc7cfba979acf6d63f073151df17d12", "e2a196b0eec41712d70355978832fd2a7bdfc554"),
    row(programs::reacquire_held, 1, "redis-semaphore: mutex refresh", "594683e49a64ebaf975caf5f8079a1d097c438f1", "8b94bead10f334fb89b934d1872f79565791a3fc"),
    row(programs::signal_release, 2, "python-redis-lock: release", "90da91872223f85eb1376a17e3c4df21ace8c54b", "e62e8a4092c00199a708a569bfad0b3bd77c38dd"),
    row(programs::signal_extend, 2, "python-redis-lock: extend", "fed16109024d968d9496e4140fe1355bac05ebff", "2b7f23e28e42f568dd06c8b2ce170ed24766260e"),
    row(programs::signal_reset, 2, "python-redis-lock: reset", "afbc8014508f92e446b56567e8ba600e811c1bd5", "f72689ff88bdc252781125a41ea506ad375d2e08"),
    row(programs::spring_unlock, 1, "Spring Integration: unlock", "f0f9038aa2b6d6c3436c72d147573ea2a58f0ef2", "be927ce5b1289a904f8646362c77681b4e485231"),
    row(programs::spring_unlock, 1, "Spring Integration: unlock (DEL)", "356d97191f2b63031781ccc0e8e82f02e1995a90", "6423af03608b121cd85edcad4ab1a1f35a0c1462"),
    row(programs::spring_obtain, 1, "Spring Integration: obtain", "175897a4e379e99e79a54937be09226f76cdcfe5", "c5cf4f7d28722ed2a2d039770ab60f1a3990edb5"),
    row(programs::spring_unlock_publish, 1, "Spring Integration: unlock and publish", "7a71e9443a2a41539fb115a5a27d5a748a871aed", "535542247efdf529945e62f456e99e461db149ac"),
    row(programs::spring_unlock_publish, 1, "Spring Integration: unlock and publish (DEL)", "b2dedc0ab01c17f9f20e3e6ddb62dcb6afbed0bd", "5cd87413692ec8af80a4b7e1172eb6bc7b5830c9"),
    row(programs::redisson_lock, 1, "Redisson: RLock.tryLock", "149c5a8bf18676fd99e9e6e24923bd64d9b62f94", "9d63fe9200ea34c1d68a570e0c326eada5da2b71"),
    row(programs::redisson_force_unlock, 2, "Redisson: RLock.forceUnlock", "605e338249a7a1d40df83b04f7658354f883b41b", "b4fe609239208169c53d0a129ea5b03c96413d42"),
    row(programs::redisson_unlock, 3, "Redisson: RLock.unlock", "6866459238a13a701d42f4971f12d9f3a50e2442", "eb8dcc7f247293a8ad8a5e3dde60ea6f34c25366"),
    row(programs::redisson_renew, 1, "Redisson: RLock renewal", "8e19a1ddbdee9138df9f32a480c57addab4353d1", "9229fc4a3ae05651a0069a8e308302151e8f484a"),
    row(programs::spring_renew, 1, "Spring Integration: renew", "879e0f7b8d83c3266d4e996627438c05dbda0b89", "fb00299e89f5ced6edc3926e0f407d0579b0b935"),
];
