//! The bank: accounts, and what can be done with them. The program, an example and the tests share it.

use event_sourcing::error::InvalidName;
use event_sourcing::{Boundary, Decider, EventContent, domain_events};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Somebody has an account now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccountOpened {
    /// Who.
    pub(crate) owner: String,
}

/// Money came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MoneyDeposited {
    /// How much.
    pub(crate) cents: u64,
}

/// Money went out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MoneyWithdrawn {
    /// How much.
    pub(crate) cents: u64,
}

impl EventContent for AccountOpened {
    const TYPE: &'static str = "account.opened";
}

impl EventContent for MoneyDeposited {
    const TYPE: &'static str = "account.deposited";
}

impl EventContent for MoneyWithdrawn {
    const TYPE: &'static str = "account.withdrawn";
}

domain_events! {
    /// What happens to an account.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) enum AccountEvent {
        Opened(AccountOpened),
        Deposited(MoneyDeposited),
        Withdrawn(MoneyWithdrawn),
    }
}

/// What can be asked of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AccountCommand {
    /// To be opened.
    Open {
        /// For whom.
        owner: String,
    },
    /// To take money.
    Deposit {
        /// How much.
        cents: u64,
    },
    /// To give money.
    Withdraw {
        /// How much.
        cents: u64,
    },
}

/// Why an account refuses.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    /// It cannot be opened twice.
    #[error("the account is open already")]
    IsOpen,
    /// Nobody has opened it.
    #[error("there is no such account")]
    NoAccount,
    /// Nothing is no amount.
    #[error("the amount must not be zero")]
    NoAmount,
    /// There is not enough in it.
    #[error("the balance is {}", euros(*.balance))]
    Overdraft {
        /// What there is, in cents.
        balance: u64,
    },
    /// It would be more than can be counted.
    #[error("no account holds that much")]
    TooMuch,
}

/// An account as decisions are made on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccountState {
    /// Whose it is, once it was opened.
    pub(crate) owner: Option<String>,
    /// What is in it, in cents.
    pub(crate) balance: u64,
}

/// Decides for an account: its boundary is the stream `account-ID`.
#[derive(Debug)]
pub(crate) struct Account;

impl Decider for Account {
    const NAME: &'static str = "account";

    type Id = String;
    type State = AccountState;
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = Refusal;

    fn boundary(id: &String) -> Result<Boundary, InvalidName> {
        Boundary::stream(Self::NAME, id)
    }

    fn initial(_: &String) -> AccountState {
        AccountState::default()
    }

    fn evolve(state: &mut AccountState, event: &AccountEvent) {
        match event {
            AccountEvent::Opened(opened) => state.owner = Some(opened.owner.clone()),
            AccountEvent::Deposited(deposited) => {
                state.balance = state.balance.saturating_add(deposited.cents);
            }
            AccountEvent::Withdrawn(withdrawn) => {
                state.balance = state.balance.saturating_sub(withdrawn.cents);
            }
        }
    }

    fn decide(
        state: &AccountState,
        command: &AccountCommand,
    ) -> Result<Vec<AccountEvent>, Refusal> {
        match *command {
            AccountCommand::Open { ref owner } if state.owner.is_none() => {
                Ok(vec![AccountOpened { owner: owner.clone() }.into()])
            }
            AccountCommand::Open { .. } => Err(Refusal::IsOpen),
            _ if state.owner.is_none() => Err(Refusal::NoAccount),
            AccountCommand::Deposit { cents: 0 } | AccountCommand::Withdraw { cents: 0 } => {
                Err(Refusal::NoAmount)
            }
            AccountCommand::Deposit { cents } if state.balance.checked_add(cents).is_none() => {
                Err(Refusal::TooMuch)
            }
            AccountCommand::Withdraw { cents } if cents > state.balance => {
                Err(Refusal::Overdraft { balance: state.balance })
            }
            AccountCommand::Deposit { cents } => Ok(vec![MoneyDeposited { cents }.into()]),
            AccountCommand::Withdraw { cents } => Ok(vec![MoneyWithdrawn { cents }.into()]),
        }
    }
}

/// An amount as people write it.
#[must_use]
pub(crate) fn euros(cents: u64) -> String {
    format!("€{}.{:02}", cents / 100, cents % 100)
}
