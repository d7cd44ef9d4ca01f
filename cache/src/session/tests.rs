use crate::command::testing::{TestNode, call, received, run, story};
use crate::session::Next;

#[test]
fn unknown_commands_and_wrong_numbers_of_arguments_are_refused_in_redis_words() {
    let mut node = TestNode::new();
    assert_eq!(node.run("nope"), "-ERR unknown command 'nope', with args beginning with: ");
    assert_eq!(
        node.run("nope a b"),
        "-ERR unknown command 'nope', with args beginning with: 'a' 'b' "
    );
    node.story(
        "GET => -ERR wrong number of arguments for 'get' command\n\
         PING a b => -ERR wrong number of arguments for 'ping' command\n\
         CLIENT => -ERR wrong number of arguments for 'client' command\n\
         CLIENT nope => -ERR unknown subcommand 'nope'. Try CLIENT HELP.\n\
         CLIENT ID 1 => -ERR wrong number of arguments for 'client|id' command\n\
         CLIENT MAINT_NOTIFICATIONS ON => -ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\n",
    );
}

#[test]
fn an_unknown_command_shows_a_bounded_part_of_itself() {
    let mut node = TestNode::new();
    let long = [b'x'; 5000];
    let reply = node.call(&[&long, &long, &long]);
    assert!(reply.len() < 400, "{}", reply.len());
    assert!(node.call(&[b"get", &long, &long]).starts_with(b"-ERR wrong number"));
    let reply = node.call(&[b"client", &long]);
    assert!(reply.len() < 200, "{}", reply.len());
    assert_eq!(node.call(&[b"a\r\nb"]).iter().filter(|byte| **byte == b'\n').count(), 1);
}

#[test]
fn hello_chooses_the_protocol_and_tells_what_the_server_is() {
    let mut node = TestNode::new();
    node.story(
        "HELLO 4 => -NOPROTO unsupported protocol version\n\
         HELLO x => -ERR Protocol version is not an integer or out of range\n\
         HELLO 3 NOPE => -ERR Syntax error in HELLO option 'NOPE'\n\
         HELLO 3 SETNAME => -ERR Syntax error in HELLO option 'SETNAME'\n\
         HGETALL h => []\n\
         HELLO 3 SETNAME me => {\"server\": \"redis\", \"version\": \"7.4.0\", \"proto\": 3, \"id\": 1, \
         \"mode\": \"standalone\", \"role\": \"master\", \"modules\": []}\n\
         CLIENT GETNAME => \"me\"\n\
         HGETALL h => {}\n\
         RESET => RESET\n\
         CLIENT GETNAME => nil\n\
         HGETALL h => []\n",
    );
}

#[test]
fn before_authentication_there_is_little_to_call() {
    let mut node = TestNode::new();
    node.engine.access.set_default_password(b"secret");
    let mut other = node.connect();
    let engine = node.engine.clone();
    for (line, reply) in [
        ("PING", "-NOAUTH Authentication required."),
        ("GET a", "-NOAUTH Authentication required."),
        ("nope", "-ERR unknown command 'nope', with args beginning with: "),
        ("AUTH wrong", "-WRONGPASS invalid username-password pair or user is disabled."),
        (
            "HELLO 3 AUTH default wrong",
            "-WRONGPASS invalid username-password pair or user is disabled.",
        ),
        ("AUTH secret", "OK"),
        ("PING", "PONG"),
        ("RESET", "RESET"),
        ("PING", "-NOAUTH Authentication required."),
    ] {
        assert_eq!(run(&engine, &mut other, line), reply, "{line}");
    }
    assert!(run(&engine, &mut other, "HELLO 3").starts_with("-NOAUTH HELLO must be called"));
    assert!(run(&engine, &mut other, "HELLO 3 AUTH default secret").starts_with('{'));
}

#[test]
fn replies_can_be_turned_off_and_skipped() {
    story(
        "CLIENT REPLY SKIP => \n\
         SET a 1 => \n\
         GET a => \"1\"\n\
         CLIENT REPLY OFF => \n\
         GET a => \n\
         nope => \n\
         CLIENT REPLY SKIP => \n\
         CLIENT REPLY ON => OK\n\
         GET a => \"1\"\n\
         CLIENT REPLY MAYBE => -ERR syntax error\n",
    );
}

#[test]
fn quit_closes_after_its_reply() {
    let mut node = TestNode::new();
    let mut out = Vec::new();
    let now = crate::engine::Clock::now(&*node.clock);
    let (next, _) = node.session.execute(&node.engine, &[b"quit"], now, &mut out);
    assert_eq!((next, &*out), (Next::Close, &b"+OK\r\n"[..]));
    let (next, _) = node.session.execute(&node.engine, &[b"POST", b"/"], now, &mut out);
    assert_eq!(next, Next::Close);
}

#[test]
fn a_pause_holds_writes_back_and_carries_them_out_when_it_ends() {
    let mut node = TestNode::new();
    let engine = node.engine.clone();
    let mut other = node.connect();
    node.story("CLIENT PAUSE 100 WRITE => OK\nGET a => nil");
    let mut out = Vec::new();
    let now = || engine.clock.now();
    let (next, _) = other.execute(&engine, &[b"set", b"a", b"1"], now(), &mut out);
    let until = now().monotonic_us + 100_000;
    assert_eq!((next, out.len()), (Next::Wait(Some(until)), 0));
    assert!(node.run("CLIENT LIST").contains("flags=b"));
    // Woken too early, it goes on waiting.
    let (next, _) = other.wait_is_over(&engine, now(), &mut out);
    assert_eq!((next, out.len()), (Next::Wait(Some(until)), 0));
    node.story("CLIENT UNPAUSE => OK");
    let (next, _) = other.wait_is_over(&engine, now(), &mut out);
    assert_eq!((next, &*out), (Next::Continue, &b"+OK\r\n"[..]));
    node.story("GET a => \"1\"\nCLIENT PAUSE 100 => OK");
    out.clear();
    let (next, _) = other.execute(&engine, &[b"get", b"a"], now(), &mut out);
    assert!(matches!(next, Next::Wait(Some(_))));
    node.clock.advance_ms(100);
    let (next, _) = other.wait_is_over(&engine, now(), &mut out);
    assert_eq!((next, &*out), (Next::Continue, &b"$1\r\n1\r\n"[..]));
}

#[test]
fn clients_are_killed_by_address_and_by_filters() {
    let mut node = TestNode::new();
    let engine = node.engine.clone();
    let (mut second, mut third) = (node.connect(), node.connect());
    node.story(
        "CLIENT KILL 1.2.3.4:5 => -ERR No such client\n\
         CLIENT KILL ID 0 => -ERR client-id should be greater than 0\n\
         CLIENT KILL TYPE nope => -ERR Unknown client type 'nope'\n\
         CLIENT KILL USER nope => -ERR No such user 'nope'\n\
         CLIENT KILL ID 1 SKIPME maybe => -ERR syntax error\n\
         CLIENT KILL ID => -ERR No such client\n\
         CLIENT KILL TYPE master => 0\n\
         CLIENT KILL TYPE pubsub => 0\n\
         CLIENT KILL ID 1 => 0\n\
         CLIENT KILL ID 2 TYPE normal USER default => 1\n",
    );
    assert!(second.client.is_doomed() && !third.client.is_doomed());
    assert_eq!(run(&engine, &mut third, "SUBSCRIBE c"), "[\"subscribe\", \"c\", 1]");
    assert_eq!(node.run("CLIENT KILL TYPE pubsub"), "1");
    second.end(&engine);
    third.end(&engine);
    assert_eq!(engine.clients.len(), 1);
    assert_eq!(node.run("PUBLISH c x"), "0");
    assert_eq!(node.run("CLIENT KILL ID 1 SKIPME no"), "1");
    assert_eq!(node.session.next, Next::Close);
}

#[test]
fn a_line_of_client_list_has_the_fields_of_redis() {
    let mut node = TestNode::new();
    node.story(
        "CLIENT SETNAME a => OK\n\
         CLIENT SETNAME \"a b\" => -ERR Client names cannot contain spaces, newlines or special characters.\n\
         CLIENT SETINFO LIB-NAME lib => OK\n\
         CLIENT SETINFO lib-ver 1.2 => OK\n\
         CLIENT SETINFO LIB-NAME \"a b\" => -ERR lib-name cannot contain spaces, newlines or special characters.\n\
         CLIENT SETINFO nope x => -ERR Unrecognized option 'nope'\n\
         SELECT 3 => OK\n\
         SELECT 16 => -ERR DB index is out of range\n\
         SELECT x => -ERR value is not an integer or out of range\n\
         CLIENT LIST ID x => -ERR Invalid client ID\n\
         CLIENT LIST TYPE nope => -ERR Unknown client type 'nope'\n\
         CLIENT LIST TYPE master => \"\"\n",
    );
    node.clock.advance_ms(2000);
    let line = node.run("CLIENT INFO");
    let fields: Vec<&str> = line
        .trim_matches('"')
        .trim_end_matches("\\n")
        .split(' ')
        .filter_map(|it| it.split('=').next())
        .collect();
    assert_eq!(
        fields.join(" "),
        "id addr laddr fd name age idle flags db sub psub ssub multi qbuf qbuf-free argv-mem \
         multi-mem rbs rbp obl oll omem tot-mem events cmd user redir resp lib-name lib-ver"
    );
    for part in [
        "id=1 ",
        "name=a ",
        "age=2 idle=0 flags=N db=3 ",
        "multi=-1",
        "cmd=client|info user=default redir=-1 resp=2 lib-name=lib lib-ver=1.2",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert_eq!(node.run("CLIENT LIST").matches("id=").count(), 1);
    assert_eq!(node.run("CLIENT LIST ID 1 2 1").matches("id=1 ").count(), 2);
}

#[test]
fn a_subscriber_of_resp2_may_do_little_else() {
    let mut node = TestNode::new();
    node.story(
        "SUBSCRIBE a => [\"subscribe\", \"a\", 1]\n\
         PING => [\"pong\", \"\"]\n\
         PING x => [\"pong\", \"x\"]\n\
         GET a => -ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\n\
         CLIENT ID => -ERR Can't execute 'client|id': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\n\
         UNSUBSCRIBE => [\"unsubscribe\", \"a\", 0]\n\
         GET a => nil\n\
         SSUBSCRIBE s => [\"ssubscribe\", \"s\", 1]\n\
         GET a => -ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\n\
         RESET => RESET\n\
         GET a => nil\n",
    );
}

#[test]
fn one_who_does_not_read_is_doomed_and_costs_nobody_anything() {
    let mut node = TestNode::new();
    let engine = node.engine.clone();
    let mut reader = node.connect();
    run(&engine, &mut reader, "SUBSCRIBE c");
    reader.client.outbox.set_limit(100);
    reader.client.set_buffers(0, 50);
    assert_eq!(node.run("PUBLISH c 12345"), "1");
    assert!(!reader.client.is_doomed());
    assert_eq!(node.run("PUBLISH c 12345"), "1");
    assert!(reader.client.is_doomed());
    assert_eq!(reader.client.outbox.len(), 0);
    assert_eq!(received(&mut reader), "");
}

#[test]
fn reads_of_a_client_that_does_not_touch_are_no_uses() {
    TestNode::new().story(
        "SET k 1 => OK\n\
         wait 5000\n\
         EXISTS k => 1\n\
         OBJECT IDLETIME k => 5\n\
         CLIENT NO-TOUCH ON => OK\n\
         GET k => \"1\"\n\
         OBJECT IDLETIME k => 5\n\
         TOUCH k => 1\n\
         OBJECT IDLETIME k => 0\n\
         wait 5000\n\
         CLIENT NO-TOUCH OFF => OK\n\
         GET k => \"1\"\n\
         OBJECT IDLETIME k => 0\n",
    );
}

#[test]
fn what_looks_at_all_keys_does_so_within_a_transaction_too() {
    let mut node = TestNode::new();
    for line in ["LATTICE HOTKEYS", "LATTICE PREFIXES", "INFO", "CONFIG RESETSTAT", "MEMORY STATS"]
    {
        assert_eq!(node.run("MULTI"), "OK");
        assert_eq!(node.run("GET a"), "QUEUED");
        assert_eq!(node.run(line), "QUEUED");
        assert!(node.run("EXEC").starts_with("[nil, "), "{line}");
    }
}

#[test]
fn a_transaction_is_no_larger_than_a_request_may_be() {
    let mut node = TestNode::new();
    node.run("CONFIG SET client-query-buffer-limit 1mb");
    node.run("MULTI");
    let value = vec![b'x'; 600 << 10];
    assert_eq!(node.call(&[b"SET", b"a", &value]), b"+QUEUED\r\n");
    let refused = "-ERR the transaction is larger than client-query-buffer-limit\r\n";
    assert_eq!(node.call(&[b"SET", b"b", &value]), refused.as_bytes());
    assert!(node.run("EXEC").starts_with("-EXECABORT"));
    assert_eq!(node.run("EXISTS a b"), "0");
    assert_eq!(node.engine.store.memory().buffers, 0);
}

#[test]
fn logs_keep_no_more_than_a_piece_of_what_clients_say() {
    let mut node = TestNode::new();
    let name = vec![b'n'; 1024];
    assert_eq!(node.call(&[b"CLIENT", b"SETNAME", &name]), b"+OK\r\n");
    assert!(node.engine.store.memory().buffers >= 1024);
    let longer = vec![b'n'; 1025];
    assert_eq!(node.call(&[b"CLIENT", b"SETNAME", &longer])[0], b'-');
    node.run("CONFIG SET slowlog-log-slower-than 0");
    node.run("AUTH nobody nothing");
    node.run("GET a");
    let kept = node.engine.access.refusals(9);
    assert!(kept.len() == 1 && kept.iter().all(|entry| entry.client.len() <= 1024));
    let slow = node.engine.slow_log.latest(99);
    assert!(!slow.is_empty() && slow.iter().all(|entry| entry.name.len() <= 128));
}

#[test]
fn a_user_whose_name_is_no_text_is_known_by_it() {
    let mut node = TestNode::new();
    node.call(&[b"ACL", b"SETUSER", b"u\xff", b"on", b"nopass", b"+@all", b"allkeys"]);
    let mut theirs = node.connect();
    assert_eq!(call(&node.engine, &mut theirs, &[&b"AUTH"[..], b"u\xff", b"any"]), b"+OK\r\n");
    assert_eq!(node.call(&[b"ACL", b"DELUSER", b"u\xff"]), b":1\r\n");
    assert!(theirs.client.is_doomed());
}

#[test]
fn what_is_held_back_counts_against_the_limit_of_memory() {
    let mut node = TestNode::new();
    let mut other = node.connect();
    node.run("CLIENT PAUSE 100");
    let before = node.engine.store.memory().buffers;
    let value = vec![b'v'; 10_000];
    assert_eq!(call(&node.engine, &mut other, &[&b"SET"[..], b"a", &value]), b"");
    assert!(node.engine.store.memory().buffers >= before + 10_000);
    node.clock.advance_ms(100);
    let mut out = Vec::new();
    other.wait_is_over(&node.engine, node.engine.clock.now(), &mut out);
    assert_eq!((&out[..], node.engine.store.memory().buffers), (&b"+OK\r\n"[..], before));
}
