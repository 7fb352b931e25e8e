//! The dashboard: a web page, and the way of its requests to the API server.
//!
//! The server has no rights of its own and keeps no session. The page holds the user's token (in the tab's memory, or
//! in its sessionStorage) and sends it with every request; [`forward`] passes requests on as they are, and only those of
//! the API. There are no cookies, so no other site can make a browser act for the user; [`security`] sets what the page
//! may load and who may frame it: nothing foreign, nobody.

mod assets;
mod forward;
mod run;
mod security;

pub use run::{DashboardError, Options, run};
