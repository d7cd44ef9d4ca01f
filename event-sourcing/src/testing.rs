//! For tests: of domain code ([`given()`]), of read models ([`projected()`]), of many users at once ([`mod@interleave`]), and of backends ([`conformance`],
//! [`differential`]).

pub mod conformance;
pub mod differential;
pub mod given;
pub mod interleave;
pub mod projected;

pub use given::given;
pub use interleave::{Chance, WaveringStore, interleave};
pub use projected::projected;
