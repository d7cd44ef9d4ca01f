//! The balances of all accounts, as a read model.

use event_sourcing::projection::{HandlerError, Projection, Rows as _, Table, Tx};
use event_sourcing::{DomainEvent as _, EventContent as _, Recorded};

use crate::bank::{AccountEvent, AccountOpened, MoneyDeposited, MoneyWithdrawn};

/// The balance of each account in cents, by the name of its stream.
pub(super) const BALANCES: Table<str, u64> = Table::new("balances");

/// The name of the read model.
pub(super) const NAME: &str = "balances";

/// What makes it of the events.
pub(super) fn projection() -> Projection {
    Projection::new(NAME, "1")
        .on(AccountOpened::TYPE, take_in)
        .on(MoneyDeposited::TYPE, take_in)
        .on(MoneyWithdrawn::TYPE, take_in)
}

fn take_in(tx: &mut Tx<'_>, recorded: &Recorded) -> Result<(), HandlerError> {
    let account = recorded.stream.as_str();
    let balance = tx.get(&BALANCES, account)?.unwrap_or(0);
    let balance = match AccountEvent::schema().decode(&recorded.event)? {
        AccountEvent::Opened(_) => balance,
        AccountEvent::Deposited(deposited) => balance + deposited.cents,
        AccountEvent::Withdrawn(withdrawn) => balance - withdrawn.cents,
    };
    tx.put(&BALANCES, account, &balance)?;
    Ok(())
}
