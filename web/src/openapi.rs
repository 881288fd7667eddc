//! The API described: OpenAPI, made of the handlers' own annotations and the shapes that they take and give.

use utoipa::OpenApi;

use crate::{archive, change, content, operate, pieces, probes, queries, surveys, upload};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Blockyard",
        description = "The API of a Blockyard cluster's page. Errors are {kind, message} with a fitting status."
    ),
    paths(
        queries::status,
        queries::events,
        queries::history,
        queries::timeline,
        queries::files,
        queries::file,
        queries::block,
        queries::held,
        surveys::blocks,
        surveys::block_map,
        operate::what_if,
        content::block,
        content::file,
        upload::put,
        upload::form,
        change::remove,
        archive::archive,
        change::make_folder,
        change::rename,
        operate::replication,
        operate::trash,
        operate::empty_trash,
        operate::discard,
        operate::restore,
        operate::duty,
        operate::repair,
        operate::scrub,
        pieces::open,
        pieces::look,
        pieces::abandon,
        pieces::store,
        pieces::commit,
        probes::health,
        probes::live,
        probes::ready,
        probes::metrics,
    )
)]
struct Described;

/// The description.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    Described::openapi()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hyper::Method;

    use super::*;
    use crate::routes::{Call, ROUTES};

    /// Not part of the API: the page's files, and what is made for other programs.
    const OTHERS: [Call; 5] = [
        Call::Index,
        Call::Asset,
        Call::OpenApi,
        Call::Grafana,
        Call::Alerts,
    ];

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let described = serde_json::to_value(document()).unwrap();
        let mut told = BTreeSet::new();
        for (path, methods) in described["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                told.insert((method.to_uppercase(), path.clone()));
            }
        }
        let routes = ROUTES.iter().filter(|(.., call)| !OTHERS.contains(call));
        let routed: BTreeSet<_> = routes
            .map(|(method, path, _): &(Method, &str, Call)| (method.to_string(), path.replace("{*", "{")))
            .collect();
        assert_eq!(told, routed);
    }
}
