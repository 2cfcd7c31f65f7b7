//! What `wit-bindgen` makes of `wit/task.wit`. Nothing else is in here.

wit_bindgen::generate!({ path: "../wit", world: "task" });
