//! The server at its edge, over real sockets: requests cut and piled up, limits, ends of connections.

mod limits;
mod node;
mod serving;
mod tls;
mod waiting;
