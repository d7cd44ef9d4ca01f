//! A price that changes while somebody shops (dcb.events): what was shown holds for ten minutes more, and no longer.
//!
//! An order for several products depends on the prices of exactly these. A new price of one that is not in it disturbs nobody.
//!
//! `cargo run -p event-sourcing --example dcb_dynamic_price`
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]

use std::collections::BTreeMap;
use std::error::Error;

use event_sourcing::condition::{Query, QueryItem};
use event_sourcing::error::InvalidName;
use event_sourcing::testing::given;
use event_sourcing::{
    Append, Boundary, Codec, Decider, DomainEvent, DomainStore, EventContent, EventStore,
    ExecuteError, Expected, Labels, MemoryStore, StreamName, domain_events,
};
use futures::executor::block_on;
use serde::{Deserialize, Serialize};

/// For so many minutes a price holds after it has changed.
const GRACE_MINUTES: u32 = 10;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PriceSet {
    product: String,
    cents: u64,
    minute: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ProductsOrdered {
    /// Cents by product.
    items: BTreeMap<String, u64>,
}

impl EventContent for PriceSet {
    const TYPE: &'static str = "price.set";

    fn labels(&self, labels: &mut Labels) {
        labels.add(format!("product:{}", self.product));
    }
}

impl EventContent for ProductsOrdered {
    const TYPE: &'static str = "products.ordered";

    fn labels(&self, labels: &mut Labels) {
        for product in self.items.keys() {
            labels.add(format!("product:{product}"));
        }
    }
}

domain_events! {
    /// What happens in the shop.
    #[derive(Clone, Debug, PartialEq)]
    enum ShopEvent {
        PriceSet(PriceSet),
        Ordered(ProductsOrdered),
    }
}

/// Takes an order: its boundary is the prices of the products in it.
struct Order;

#[derive(Debug)]
struct Buy {
    /// What was shown, in cents, by product.
    shown: BTreeMap<String, u64>,
    minute: u32,
}

#[derive(Clone, Debug, PartialEq)]
enum Refusal {
    NoPrice { product: String },
    OtherPrice { product: String },
}

impl Decider for Order {
    const NAME: &'static str = "order";

    /// The products.
    type Id = Vec<String>;
    /// Every price there was, with the minute since when, by product.
    type State = BTreeMap<String, Vec<(u32, u64)>>;
    type Command = Buy;
    type Event = ShopEvent;
    type Rejection = Refusal;

    fn boundary(products: &Self::Id) -> Result<Boundary, InvalidName> {
        let prices = |product| QueryItem::of([PriceSet::TYPE], [format!("product:{product}")]);
        let items = products.iter().map(prices).collect::<Result<_, _>>()?;
        Ok(Boundary::query(Query { items }))
    }

    fn initial(_: &Self::Id) -> Self::State {
        BTreeMap::new()
    }

    fn evolve(prices: &mut Self::State, event: &ShopEvent) {
        if let ShopEvent::PriceSet(set) = event {
            prices.entry(set.product.clone()).or_default().push((set.minute, set.cents));
        }
    }

    fn decide(prices: &Self::State, buy: &Buy) -> Result<Vec<ShopEvent>, Refusal> {
        for (product, cents) in &buy.shown {
            let Some(history) = prices.get(product) else {
                return Err(Refusal::NoPrice { product: product.clone() });
            };
            // A price ends when the next one begins, and holds for a while after that.
            let mut ends = history.iter().skip(1).map(|(minute, _)| Some(*minute)).chain([None]);
            let holds = history.iter().any(|(_, price)| {
                let end = ends.next().flatten();
                let is_good = end.is_none_or(|end| buy.minute <= end + GRACE_MINUTES);
                price == cents && is_good
            });
            if !holds {
                return Err(Refusal::OtherPrice { product: product.clone() });
            }
        }
        Ok(vec![ProductsOrdered { items: buy.shown.clone() }.into()])
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let set = |product: &str, cents, minute| {
        ShopEvent::from(PriceSet { product: product.to_owned(), cents, minute })
    };
    let basket = |items: &[(&str, u64)]| -> BTreeMap<String, u64> {
        items.iter().map(|(product, cents)| ((*product).to_owned(), *cents)).collect()
    };
    let buy = |items: &[(&str, u64)], minute| Buy { shown: basket(items), minute };
    let ordered = |items: &[(&str, u64)]| ShopEvent::from(ProductsOrdered { items: basket(items) });
    let tea = || vec!["tea".to_owned()];
    let other_price = |product: &str| Refusal::OtherPrice { product: product.to_owned() };
    let history = || [set("tea", 300, 0), set("tea", 350, 100)];
    given::<Order>([])
        .on(tea())
        .when(buy(&[("tea", 300)], 0))
        .then_rejected(Refusal::NoPrice { product: "tea".to_owned() });
    given::<Order>(history())
        .on(tea())
        .when(buy(&[("tea", 350)], 500))
        .then_events([ordered(&[("tea", 350)])]);
    given::<Order>(history())
        .on(tea())
        .when(buy(&[("tea", 300)], 110))
        .then_events([ordered(&[("tea", 300)])]);
    given::<Order>(history())
        .on(tea())
        .when(buy(&[("tea", 300)], 111))
        .then_rejected(other_price("tea"));
    given::<Order>([set("tea", 300, 0), set("cake", 400, 0)])
        .on(vec!["tea".to_owned(), "cake".to_owned()])
        .when(buy(&[("tea", 300), ("cake", 399)], 1))
        .then_rejected(other_price("cake"));

    let store = MemoryStore::default();
    let prices = StreamName::new("prices")?;
    for event in [set("tea", 300, 0), set("cake", 400, 0), set("cake", 500, 20)] {
        let event = event.encode(Codec::Json)?;
        block_on(store.append(Append::to(prices.clone(), Expected::Any, [event])))?;
    }
    let products = || vec!["tea".to_owned(), "cake".to_owned()];
    let shown = || buy(&[("tea", 300), ("cake", 400)], 25);
    let done = store.execute::<Order>(shown()).on(products()).wait();
    let done = done.map_err(|error| format!("{error:?}"))?;
    println!("five minutes after the cake became dearer: {:?}", done.events[0].event);
    let late = Buy { minute: 31, ..shown() };
    let refused = store.execute::<Order>(late).on(products()).wait();
    assert!(matches!(refused, Err(ExecuteError::Rejected(Refusal::OtherPrice { .. }))));
    println!("eleven minutes after it: refused");
    Ok(())
}
