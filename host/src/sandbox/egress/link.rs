//! `wasi:http` in the linkers: all of it for steps, all but the sending for handlers.

use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::{
    RequestOptions, WasiHttp, WasiHttpCtxView, WasiHttpView,
    p2::{
        bindings::{LinkOptions, http::types},
        types::{HostFutureIncomingResponse, HostOutgoingRequest},
    },
};

use crate::sandbox::{ending::Stop, state::State};

/// For steps: requests go out.
pub(in crate::sandbox) fn offer(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
}

/// For the handler and `describe`: a request can be written, which says nothing of the world, and
/// sending it ends the guest.
pub(in crate::sandbox) fn offer_and_refuse(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let options = LinkOptions::default();
    types::add_to_linker::<_, WasiHttp>(linker, &(&options).into(), State::http)?;
    linker.instance("wasi:http/outgoing-handler@0.2.12")?.func_wrap(
        "handle",
        |_, _: (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>)| {
            Err::<(Result<Resource<HostFutureIncomingResponse>, types::ErrorCode>,), _>(Stop::misuse(
                "an HTTP request was to be sent outside of a step; its answer would be another in each \
                 replay: send it inside of a step",
            ))
        },
    )
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.http_hooks, table: &mut self.table, ctx: &mut self.http }
    }
}
