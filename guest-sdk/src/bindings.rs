//! What `wit-bindgen` makes of `wit/task.wit`. Nothing else is in here.

#![allow(clippy::too_many_arguments, reason = "not written by hand")]

wit_bindgen::generate!({ path: "../wit", world: "task" });
