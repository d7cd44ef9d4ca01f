//! Given, when, then; and what a test says that fails.

use std::panic::catch_unwind;

use event_sourcing::testing::given;

use super::bank::{Account, AccountEvent, AccountOpened, MoneyDeposited, MoneyWithdrawn, Refusal};
use super::courses::{No, Subscribe, Subscribed, Subscription, of};
use super::{OPEN, deposit, withdraw};

fn opened() -> AccountEvent {
    AccountOpened { owner: "ada".to_owned() }.into()
}

fn deposited(cents: u64) -> AccountEvent {
    MoneyDeposited { cents }.into()
}

fn withdrawn(cents: u64) -> AccountEvent {
    MoneyWithdrawn { cents }.into()
}

#[test]
fn an_account_keeps_its_rules() {
    given::<Account>([]).when(OPEN()).then_events([opened()]);
    given::<Account>([opened()]).when(OPEN()).then_rejected(Refusal::IsOpen);
    given::<Account>([]).when(deposit(1)).then_rejected(Refusal::NoAccount);
    given::<Account>([opened()]).when(deposit(0)).then_rejected(Refusal::NoAmount);
    given::<Account>([opened(), deposited(100)]).when(withdraw(100)).then_events([withdrawn(100)]);
    given::<Account>([opened(), deposited(100), withdrawn(60)])
        .when(withdraw(41))
        .then_rejected(Refusal::Overdraft { balance: 40 });
    given::<Account>([opened(), deposited(u64::MAX)])
        .when(deposit(1))
        .then_rejected(Refusal::TooMuch);
}

#[test]
fn events_outside_the_boundary_change_nothing() {
    let subscribed = |course: &str, student: &str| {
        Subscribed { course: course.to_owned(), student: student.to_owned() }.into()
    };
    given::<Subscription>([subscribed("c2", "s2"), subscribed("c2", "s3")])
        .on(of("c1", "s1"))
        .when(Subscribe)
        .then_events([subscribed("c1", "s1")]);
    given::<Subscription>([subscribed("c1", "s2"), subscribed("c1", "s3")])
        .on(of("c1", "s1"))
        .when(Subscribe)
        .then_rejected(No::Full);
    given::<Subscription>(["a", "b", "c"].map(|course| subscribed(course, "s1")))
        .on(of("c1", "s1"))
        .when(Subscribe)
        .then_rejected(No::Enough);
}

/// What a test says that fails.
fn said(test: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let panic = catch_unwind(test).unwrap_err();
    panic.downcast_ref::<String>().unwrap().clone()
}

#[test]
fn a_failure_tells_the_story_and_both_outcomes() {
    let failure = said(|| {
        given::<Account>([opened(), deposited(100)])
            .when(withdraw(60))
            .then_events([withdrawn(61), deposited(1)]);
    });
    assert_eq!(
        failure,
        "it did not come as expected (-), but so (+):\n\
         \n\
         \x20 given   Opened(AccountOpened { owner: \"ada\" })\n\
         \x20         Deposited(MoneyDeposited { cents: 100 })\n\
         \x20 when    Withdraw { cents: 60 }\n\
         \x20 then  - Withdrawn(MoneyWithdrawn { cents: 61 })\n\
         \x20       + Withdrawn(MoneyWithdrawn { cents: 60 })\n\
         \x20       - Deposited(MoneyDeposited { cents: 1 })\n"
    );
}

#[test]
fn a_refusal_instead_of_events_is_a_failure_and_the_other_way_round() {
    let failure = said(|| {
        given::<Account>([]).when(deposit(5)).then_events([deposited(5)]);
    });
    assert!(failure.contains("given   nothing"), "{failure}");
    assert!(failure.ends_with("+ the command was refused: NoAccount\n"), "{failure}");
    let failure = said(|| {
        given::<Account>([opened()]).when(deposit(5)).then_rejected(Refusal::NoAccount);
    });
    assert!(failure.contains("- the command was refused: NoAccount\n"), "{failure}");
    assert!(failure.ends_with("+ Deposited(MoneyDeposited { cents: 5 })\n"), "{failure}");
}
