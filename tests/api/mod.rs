//! Every sentence of the HTTP contract, by resource.

mod cancels;
mod events;
mod health;
mod lists;
mod modules;
mod nasty;
mod reads;
mod routes;
mod starts;
mod uploads;
mod waits;
